"""The three forms of the dense model: what they predict is what the dense model predicts, or as near as they say."""

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from tests.repair import material
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import load_packed
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.distillation import Cached, Copy, Shared, View, pruned_away
from vlmc.toolchain.repair.distillation.teachers import shared as shared_teacher
from vlmc.toolchain.repair.feeding import Batches
from vlmc.toolchain.repair.kernels import unpack
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.settings import CacheKind, RepairSettings
from vlmc.toolchain.stages.repair import Repair

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module", params=pico.USUAL)
def pruned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tmp_path_factory.mktemp(request.param)
    return material.pruned(material.dense(request.param, folder / "dense"), folder / "pruned", "wanda")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tmp_path_factory.mktemp("llava")
    return material.pruned(material.dense("llava", folder / "dense"), folder / "pruned", "wanda")


def origin(pruned: SavedModel) -> SavedModel:
    return find_dense(Artifact.open(pruned.folder))


def student(pruned: SavedModel) -> tuple[Adapters, dict[str, Tensor]]:
    """Return the pruned model with adapters of every kind of layer that look trained, and its masks."""
    model, masks = pruned.load(), load_packed(pruned.folder, Artifact.open(pruned.folder).manifest)
    adapters = attach(model, METHODS["ressa"].specs(masks, pruned.family.adaptable(model), 2, 4.0))
    draw = torch.Generator().manual_seed(0)
    for parameter in adapters.parameters().values():
        nn.init.normal_(parameter, std=0.1, generator=draw)
    return adapters, masks


def away(pruned: SavedModel, masks: dict[str, Tensor]) -> dict[str, Tensor] | None:
    return pruned_away(pruned.folder, origin(pruned).folder, Artifact.open(pruned.folder).manifest.layers, masks)


def batches(pruned: SavedModel, count: int = 6) -> Batches:
    return Batches(material.samples(count), material.encoder(origin(pruned)), 4, 0)


def test_shared_weights_answer_as_the_dense_model_bit_for_bit(pruned: SavedModel) -> None:
    adapters, masks = student(pruned)
    values = away(pruned, masks)
    assert values is not None
    before = {name: one.detach().clone() for name, one in adapters.model.named_parameters()}
    batch = batches(pruned).at(0)
    blocks = [name for name, _ in pruned.family.blocks(adapters.model, pruned.family.towers[-1])]
    shared, copy = Shared(adapters, values, View(blocks)), Copy(origin(pruned).load(), View(blocks))
    ours, true = shared.target(batch, [0]), copy.target(batch, [0])
    assert torch.equal(ours.logits_NV, true.logits_NV)
    assert all(torch.equal(one, other) for one, other in zip(ours.hidden_ND, true.hidden_ND, strict=True))
    assert not torch.equal(View().of(adapters.model, batch).logits_NV, true.logits_NV)
    assert all(torch.equal(one, before[name]) for name, one in adapters.model.named_parameters())
    assert all(one.numel() * 2 == adapters.layers[name].weight.numel() for name, one in values.items())


def test_a_shared_teacher_holds_a_byte_per_weight_of_one_layer_at_most(
    llava: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are bits; while the teacher answers, none of them is unpacked."""
    adapters, masks = student(llava)
    values, batch, held = away(llava, masks), batches(llava).at(0), list[int]()
    assert values is not None
    shared = Shared(adapters, values, View())

    gc.freeze()  # what is there already is not looked at: it is a lot, and other tests' tensors may have no sizes

    def unpacked() -> int:
        return sum(one.nbytes for one in gc.get_objects() if type(one) is Tensor and one.dtype == torch.bool)

    def note(*_: object) -> None:
        held.append(unpacked() - before)

    before = unpacked()
    handle = adapters.model.register_forward_pre_hook(note)
    monkeypatch.setattr(shared_teacher, "unpack", lambda *given: (note(), unpack(*given))[1])
    shared.target(batch, [0])
    handle.remove()
    assert len(held) == 2 * len(values) + 1
    assert max(held) <= max(layer.weight.numel() for layer in adapters.layers.values())
    assert sum(one.nbytes for one in masks.values()) * 8 == sum(2 * one.numel() for one in values.values())


def test_weights_are_not_shared_where_pruning_changed_what_it_kept(tmp_path: Path) -> None:
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned", "sparsegpt")
    masks = load_packed(source.folder, Artifact.open(source.folder).manifest)
    assert away(source, masks) is None
    stage = Repair(material.OPTIONS.model_copy(update={"teacher": "shared"}), samples=material.samples())
    with pytest.raises(InputError, match=r"--teacher shared: pruning changed weights that .* keeps: choose copy or cached"):
        stage.run(source, tmp_path / "adapted")


@pytest.mark.parametrize(("method", "mode"), [("wanda", "shared"), ("sparsegpt", "copy")])
def test_auto_takes_the_cheapest_that_is_true_and_says_which(method: str, mode: str, tmp_path: Path) -> None:
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned", method)  # type: ignore[arg-type]
    stage = Repair(material.OPTIONS.model_copy(update={"steps": 1}), samples=material.samples())
    assert stage.run(source, tmp_path / "adapted").manifest.history[-1].measures["teacher"] == mode


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_shared_and_copied_teachers_train_the_same_bytes(precision: str, llava: SavedModel, tmp_path: Path) -> None:
    """In float16, which these models are stored in, frozen weights are kept in it."""
    files = []
    for mode in ("shared", "copy"):
        options = material.OPTIONS.model_copy(
            update={"teacher": mode, "steps": 4, "hidden": 0.5, "precision": precision, "lr": 1e-3}
        )
        artifact = Repair(options, samples=material.samples()).run(llava, tmp_path / mode)
        assert artifact.manifest.history[-1].measures["skipped"] == 0
        files.append((artifact.root / "adapter" / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]


def cached(pruned: SavedModel, folder: Path, dense: Copy, **options: object) -> Cached:
    settings, adapters = RepairSettings(batch=4, teacher="cached", **options), student(pruned)[0]
    return Cached(
        folder,
        settings,
        0,
        batches=batches(pruned),
        places=range(6),
        dense=lambda: dense,
        look=lambda batch: View().of(adapters.model, batch),
    )


@pytest.mark.parametrize("kind", ["top", "sampled"])
def test_cached_logits_are_near_the_true_ones_and_say_how_near(
    kind: CacheKind, llava: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.toolchain.repair.distillation.teachers.cached.PART", 4)
    dense = Copy(origin(llava).load(), View())
    teacher = cached(llava, tmp_path / "cache", dense, cache=kind, cache_tokens=60 if kind == "top" else 4000)
    teacher.prepare(QUIET)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2
    batch = batches(llava).of([5, 1, 4])
    student_NV = View().of(student(llava)[0].model, batch).logits_NV.detach()
    true = dense.target(batch, [5, 1, 4]).divergence(student_NV, "forward", 1.0)
    found = teacher.target(batch, [5, 1, 4]).divergence(student_NV, "forward", 1.0)
    assert float(found) == pytest.approx(float(true), rel=0.05)
    measures = teacher.measures()
    assert measures["cache_bytes"] == sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.safetensors"))
    assert 0 <= measures["cache_kl_error"] < 0.05


@pytest.mark.parametrize("kind", ["top", "sampled"])
def test_a_killed_cache_goes_on_with_the_parts_that_are_there(
    kind: CacheKind, llava: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.toolchain.repair.distillation.teachers.cached.PART", 2)
    dense = Copy(origin(llava).load(), View())
    cached(llava, tmp_path / "whole", dense, cache=kind).prepare(QUIET)
    broken = cached(llava, tmp_path / "broken", dense, cache=kind)
    with pytest.raises(material.Killed):
        broken.prepare(material.KilledAt(2))
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken").iterdir()}
    assert len(written) == 2
    broken.prepare(QUIET)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken").iterdir()}
    assert all(now[name] == when for name, when in written.items())
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "broken" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 1.0}, "--hidden needs the dense model itself"),
        ({"cache": "sampled", "kl": "reverse"}, "--kl reverse needs the teacher's probabilities"),
    ],
)
def test_what_a_cache_cannot_tell_is_refused(options: dict[str, object], message: str, llava: SavedModel) -> None:
    with pytest.raises(InputError, match=message):
        cached(llava, Path("nowhere"), Copy(nn.Linear(1, 1), View()), **options)


def test_a_run_on_cached_logits_that_is_killed_ends_in_the_same_bytes(llava: SavedModel, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(
        update={"teacher": "cached", "cache": "sampled", "steps": 6, "checkpoint_every": 3}
    )
    whole = Repair(options, samples=material.samples()).run(llava, tmp_path / "whole")
    with pytest.raises(material.Killed):
        Repair(options, samples=material.samples(), progress=material.KilledAt(4)).run(llava, tmp_path / "broken")
    broken = Repair(options, resume=True, samples=material.samples()).run(llava, tmp_path / "broken")
    for name in ("adapter/adapter_model.safetensors", "manifest.json"):
        assert (broken.root / name).read_bytes() == (whole.root / name).read_bytes()
    measures = whole.manifest.history[-1].measures
    assert measures["teacher"] == "cached, sampled 64"
    assert measures["last_loss"] < measures["first_loss"]
    assert not list(tmp_path.glob("*.checkpoints"))


def test_a_method_that_is_not_distilled_needs_no_dense_model(tmp_path: Path) -> None:
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    (tmp_path / "dense").rename(tmp_path / "elsewhere")
    options = material.OPTIONS.model_copy(update={"method": "sparse-lora", "steps": 2})
    measures = Repair(options, samples=material.samples()).run(source, tmp_path / "out").manifest.history[-1].measures
    assert "teacher" not in measures
    assert measures["first_kl"] == 0.0
    assert measures["first_loss"] == measures["first_task"]
