"""Gradient checkpointing: the same bytes in every family, and less kept for the backward pass."""

from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tests import pico
from tests.repair import material
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.feeding import Batches, answer_logits
from vlmc.toolchain.repair.loading import recompute
from vlmc.toolchain.stages.repair import Repair


def kept(source: SavedModel, model: nn.Module) -> int:
    """Return the bytes that a forward pass keeps, each tensor once, parameters left out."""
    found: dict[int, int] = {}
    held = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def note(one: Tensor) -> Tensor:
        found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with saved_tensors_hooks(note, lambda one: one):
        logits = answer_logits(model, Batches(material.samples(), material.encoder(source), 8, 0).at(0))
    assert logits.requires_grad
    return sum(size for place, size in found.items() if place not in held)


@pytest.mark.integration
def test_less_is_kept(tmp_path: Path) -> None:
    source = material.dense("llava", tmp_path / "dense")
    plain, thrifty = source.load(), source.load()
    blocks = [name for tower in source.family.towers for name, _ in source.family.blocks(thrifty, tower)]
    recompute(thrifty, blocks)
    assert kept(source, thrifty) < 0.5 * kept(source, plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [name if name in pico.USUAL else pytest.param(name, marks=pytest.mark.slow) for name in pico.FAMILIES]
)
def test_the_result_has_the_same_bytes(family: str, tmp_path: Path) -> None:
    source = material.pruned(material.dense(family, tmp_path / "dense"), tmp_path / "pruned")
    found = []
    for thrifty in (False, True):
        options = material.OPTIONS.model_copy(update={"steps": 3, "hidden": 0.1, "gradient_checkpointing": thrifty})
        found.append(Repair(options, samples=material.samples()).run(source, tmp_path / str(thrifty)).digest)
    assert found[0] == found[1]
