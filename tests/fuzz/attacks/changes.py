"""Attacks on what is proven: changed weights and graphs, files that nobody listed, repairs that trained nothing."""

import json
import shutil
from pathlib import Path

from tests.fuzz.attacks.attempt import Attack, Attempt
from tests.fuzz.cases import PROVES
from tests.fuzz.folders import relist
from tests.fuzz.judging import Kind
from tests.fuzz.tensor_files import read_header, set_tensor

_NAN, _INFINITY, _ZERO = b"\x00\x7e", b"\x00\x7c", b"\x00\x00"
_TRAIN = ("--steps", "2", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2", "--quiet")


def nan_in_a_weight(attempt: Attempt) -> None:
    """NaN in the weights that are kept: the pattern holds, the bytes are others."""
    _set_weights(attempt.artifact(), _NAN)
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def infinity_in_a_weight(attempt: Attempt) -> None:
    """Infinity in the weights that are kept."""
    _set_weights(attempt.artifact(), _INFINITY)
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def a_layer_of_zeros(attempt: Attempt) -> None:
    """A layer of zeros holds every pattern."""
    _set_weights(attempt.artifact(), _ZERO)
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def nan_is_named(attempt: Attempt) -> None:
    """NaN in a weight of an artifact that was listed anew is reported with the layer's name."""
    model = attempt.artifact()
    layer = _set_weights(model, _NAN)
    relist(model)
    found = attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)
    attempt.expect(layer.removesuffix(".weight") in found.stderr, Kind.WRONG, "NaN is reported without the layer's name")


def a_flipped_sign(attempt: Attempt) -> None:
    """One flipped sign."""
    path = attempt.artifact() / "model.safetensors"
    content = bytearray(path.read_bytes())
    place = next(place for place in range(len(content) - 1, 0, -2) if content[place])
    content[place] ^= 0x80
    path.write_bytes(content)
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def flipped_bits_in_the_embedding(attempt: Attempt) -> None:
    """Flipped bits in embed_tokens.onnx make run say something else."""
    path = attempt.artifact() / "onnx" / "embed_tokens.onnx"
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) // 2, 7):
        content[place] ^= 0x40
    path.write_bytes(content)
    _all_refuse(attempt)


def a_changed_tokenizer(attempt: Attempt) -> None:
    """Two words of the tokenizer have changed places."""
    path = attempt.artifact() / "tokenizer.json"
    path.write_text(path.read_text().replace('"red"', '"rad"').replace('"yes"', '"red"').replace('"rad"', '"yes"'))
    _all_refuse(attempt)


def weights_beside_the_listed_ones(attempt: Attempt) -> None:
    """A dense model.safetensors that is listed, and an unlisted pristine zz.safetensors: the last file must not win."""
    model = attempt.artifact()
    shutil.copy(model / "model.safetensors", model / "zz.safetensors")
    shutil.copy(attempt.box.work / "dense" / "model.safetensors", model / "model.safetensors")
    _relist_without(model, "zz.safetensors")
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def an_unlisted_index(attempt: Attempt) -> None:
    """The same by an index that is not listed."""
    model = attempt.artifact()
    header = read_header((model / "model.safetensors").read_bytes())
    assert header is not None
    shutil.copy(model / "model.safetensors", model / "other.safetensors")
    shutil.copy(attempt.box.work / "dense" / "model.safetensors", model / "model.safetensors")
    index = {"metadata": {}, "weight_map": {name: "other.safetensors" for name in header if name != "__metadata__"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    _relist_without(model, "other.safetensors", "model.safetensors.index.json")
    attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)


def unlisted_files_for_loaders(attempt: Attempt) -> None:
    """Weights, an index, code or a tokenizer that are not listed are an error."""
    model = attempt.artifact()
    for name in ("zz.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "modeling_x.py", "vocab.json"):
        (model / name).write_bytes(b"{}")
        attempt.run("verify-sparsity", "model", wanted="refused", kind=Kind.CHANGED)
        (model / name).unlink()


def repair_of_infinite_hidden(attempt: Attempt) -> None:
    """--hidden inf skips every step: no success."""
    attempt.artifact()
    attempt.run("repair", "model", "--out", "r", "--hidden", "inf", *_TRAIN, wanted="refused", kind=Kind.CHANGED)


def repair_of_infinite_temperature(attempt: Attempt) -> None:
    """--temperature inf skips every step: no success."""
    attempt.artifact()
    attempt.run("repair", "model", "--out", "r", "--temperature", "inf", *_TRAIN, wanted="refused", kind=Kind.CHANGED)


def a_target_that_prunes_nothing(attempt: Attempt) -> None:
    """--target 0.001% prunes nothing, and does not hold."""
    attempt.dense()
    attempt.run(
        "prune", "dense", "--target", "0.001%", "--calibration", "2", "--out", "p", wanted="refused", kind=Kind.CHANGED
    )


ATTACKS: tuple[Attack, ...] = (
    nan_in_a_weight,
    infinity_in_a_weight,
    a_layer_of_zeros,
    nan_is_named,
    a_flipped_sign,
    flipped_bits_in_the_embedding,
    a_changed_tokenizer,
    weights_beside_the_listed_ones,
    an_unlisted_index,
    unlisted_files_for_loaders,
    repair_of_infinite_hidden,
    repair_of_infinite_temperature,
    a_target_that_prunes_nothing,
)


def _set_weights(model: Path, half: bytes) -> str:
    """Replace what is kept of the first pruned layer by a value of half precision; return the tensor's name."""
    layers = json.loads((model / "manifest.json").read_text())["layers"]
    name = str(next(iter(layers.values()))["tensor"])
    path = model / "model.safetensors"
    path.write_bytes(set_tensor(path.read_bytes(), name, half))
    return name


def _all_refuse(attempt: Attempt) -> None:
    for command in PROVES:
        attempt.run(command, wanted="refused", kind=Kind.CHANGED)


def _relist_without(model: Path, *names: str) -> None:
    """List all files anew but those, as if they had been put there later."""
    kept = {name: (model / name).read_bytes() for name in names}
    for name in names:
        (model / name).unlink()
    relist(model)
    for name, content in kept.items():
        (model / name).write_bytes(content)
