"""Adapters on disk, in peft's format: `PeftModel.from_pretrained(model, folder)` reads them as plain LoRA.

On pruned layers most methods train something else (plain LoRA's update has no mask), so an adapter read by peft is the
unmerged baseline; `vlmc merge` puts it into the weights. An adapter that is not a pair A and B has a type that peft refuses.
The safetensors file's metadata names the method and the digest of the pruned model that the adapter was trained on.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vlmc.runtime.artifact import digest_of_files, sha256_file
from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.errors import InputError
from vlmc.runtime.json_text import parse_json, read_json
from vlmc.toolchain.models.saving import write_tensors
from vlmc.toolchain.repair.adapters.attaching import Adapters, attach
from vlmc.toolchain.repair.methods import METHODS, Adapted, AdapterSpec, Method

FOLDER = "adapter"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _NOTE = "base_model.model.", "vlmc"  # one key alone: safetensors writes several in no fixed order


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter on disk: its method, rank and alpha of every layer, its tensors, and the digest of its base.

    Tensors are read when they are asked for: those of masked-full are as large as the model.
    """

    method: Method
    ranks: dict[str, tuple[int, float]]
    tensors: Mapping[str, Tensor]
    base_digest: str

    def spec(self, name: str, mask_OI: Tensor | None) -> AdapterSpec:
        """Return what to put on a layer to merge it: masked where the layer has a mask (O, I).

        An adapter that is never merged is put on as it was trained.
        """
        kind = self.method.dense if mask_OI is None else self.method.merged or self.method.pruned
        rank, alpha = self.ranks[name]
        return AdapterSpec(kind, rank, alpha, mask_OI)

    def fill(self, name: str, layer: Adapted) -> None:
        """Read one layer's tensors.

        Raises:
            InputError: they do not fit.
        """
        for part, parameter in layer.trained().items():
            if (tensor := self.tensors.get(_key(f"{name}.{part}"))) is None:
                raise InputError(f"the adapter has no {name}.{part}, which {self.method.name} needs: repair the model again")
            if tensor.shape != parameter.shape:
                shapes = f"{tuple(tensor.shape)}, this model needs {tuple(parameter.shape)}"
                raise InputError(f"the adapter's {name}.{part} is {shapes}")
            parameter.data.copy_(tensor)


def save_adapter(folder: Path, adapters: Adapters, method: Method, base_digest: str, base: str | None = None) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into the folder.

    `base_digest` is that of the pruned model; `base` is the name of the dense model, of which, if it is a path, only the
    last part is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_key(name): parameter.detach() for name, parameter in adapters.parameters().items()}
    note = {"base_digest": base_digest, "method": method.name}
    write_tensors(folder / _WEIGHTS, tensors, {_NOTE: json.dumps(note, sort_keys=True)})
    write_text(folder / _CONFIG, json.dumps(_config(adapters, method, base), indent=2, sort_keys=True) + "\n")


def load_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter that `save_adapter` wrote.

    Raises:
        InputError: a file is missing, damaged, or not of an adapter that vlmc wrote.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: repair the model again")
    try:
        with safe_open(folder / _WEIGHTS, "pt") as file:
            tensors = _Tensors(folder / _WEIGHTS, list(file.keys()))
            note = parse_json((file.metadata() or {}).get(_NOTE, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{folder / _WEIGHTS} is damaged ({error}): repair the model again") from None
    if not isinstance(note, dict) or note.get("method") not in METHODS or not isinstance(note.get("base_digest"), str):
        raise InputError(f"{folder / _WEIGHTS} has a method that this vlmc does not know: repair the model again")
    method = METHODS[note["method"]]
    ranks = _read_ranks(folder / _CONFIG, method)
    if len(unknown := {_layer(key) for key in tensors} ^ ranks.keys()):
        raise InputError(f"{folder} is damaged: {min(unknown)} is in only one of its two files")
    return SavedAdapter(method, ranks, tensors, note["base_digest"])


def digest_of_adapter(folder: Path) -> str:
    """Return the SHA-256 over an adapter's two files."""
    return digest_of_files({name: sha256_file(folder / name) for name in (_CONFIG, _WEIGHTS)})


def attach_saved(model: nn.Module, saved: SavedAdapter, masks: Mapping[str, Tensor]) -> Adapters:
    """Put a saved adapter on its whole model, as `merge` does: masked on every layer that has a mask (O, I).

    Raises:
        InputError: the adapter does not fit the model.
    """
    adapters = attach(model, {name: saved.spec(name, masks.get(name)) for name in saved.ranks})
    for name, layer in adapters.layers.items():
        saved.fill(name, layer)
    return adapters


class _Tensors(Mapping[str, Tensor]):
    """A safetensors file's tensors; the file is closed after each, so that what was read may leave the memory."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, "pt") as file:
            found: Tensor = file.get_tensor(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _key(name: str) -> str:
    return f"{_PREFIX}{name}.weight"


def _layer(key: str) -> str:
    """Return the layer's name from a tensor's name, which ends in the trained part and `weight`."""
    return key.removeprefix(_PREFIX).rsplit(".", 2)[0]


def _config(adapters: Adapters, method: Method, base: str | None) -> dict[str, Any]:
    """Return peft's LoraConfig: the most common rank and alpha as defaults, the others by layer."""
    ranks = {name: layer.rank for name, layer in adapters.layers.items()}
    alphas = {name: layer.alpha for name, layer in adapters.layers.items()}
    rank, alpha = _most_common(ranks), _most_common(alphas)
    return {
        "peft_type": method.peft_type,
        "task_type": None,
        "base_model_name_or_path": None if base is None else _name_only(base),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: one for name, one in ranks.items() if one != rank},
        "alpha_pattern": {name: one for name, one in alphas.items() if one != alpha},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
    }


def _name_only(model: str) -> str:
    """Return a demo's name or a hub id as it is, and the last part of a path."""
    path = Path(model).expanduser()
    is_path = path.is_absolute() or path.is_dir() or model.startswith(".") or model.count("/") > 1
    return path.absolute().name if is_path else model


def _most_common(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0]


def _read_ranks(path: Path, method: Method) -> dict[str, tuple[int, float]]:
    try:
        config = read_json(path)
        if config["peft_type"] != method.peft_type or config["lora_dropout"] or config["bias"] != "none":
            raise InputError(f"{path} is not an adapter of {method.name}: repair the model again")
        ranks, alphas, names = config["rank_pattern"], config["alpha_pattern"], config["target_modules"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("target_modules is not a list of names")
        return {name: (int(ranks.get(name, config["r"])), float(alphas.get(name, config["lora_alpha"]))) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}): repair the model again") from None
