"""What a sweep need not run: layers behind the last input that is looked at, and towers that it has swept."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.calibration.gathering import gathering
from vlmc.toolchain.calibration.statistics import Need
from vlmc.toolchain.calibration.walk import Sweep, _Walk
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.prune import Prune


class Block(nn.Module):
    """Runs its layers in the order, and as often, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.ended = 0

    def forward(self, x: Tensor, layers: tuple[str, ...]) -> Tensor:
        for name in layers:
            x = self.get_submodule(name)(x)
        self.ended += 1
        return x


@pytest.mark.parametrize(
    ("orders", "ended"),
    [
        ([("first", "last")] * 3, 1),
        ([("first", "last", "first")] * 3, 3),
        ([("first",), ("first", "last"), ("last",)], 3),
        ([("first", "last"), ("last", "first"), ("first",)], 2),
    ],
)
def test_a_pass_ends_once_all_layers_inputs_are_seen(orders: list[tuple[str, ...]], ended: int) -> None:
    block, expected = Block(), Block()
    expected.load_state_dict(block.state_dict())
    with gathering("block", block, Need.DIAGONAL) as gathered, gathering("block", expected, Need.DIAGONAL) as whole:
        for number, order in enumerate(orders):
            x = torch.full((1, 2, 4), number + 1.0)
            gathered.run(lambda x=x, order=order: block(x, order), None)  # type: ignore[misc]
            whole.weights_T = None
            expected(x, order)
    assert block.ended == ended
    for name, found in gathered.statistics.items():
        assert torch.equal(found.squares_I, whole.statistics[name].squares_I)
        assert torch.equal(found.count, whole.statistics[name].count)


def prune(family: str, folder: Path, out: str) -> Artifact:
    source = SavedModel.find(str(pico.save(family, folder / "dense")))
    return Prune(PruneSettings(calibration=3)).run(source, folder / out)


@pytest.mark.parametrize(
    ("family", "shortened"),
    [("llava", 1), ("blip-2-t5", 2), ("qwen3_vl", 0)],  # Qwen3-VL takes features from all over its tower
)
def test_samples_that_start_at_the_last_block_of_a_swept_tower_come_to_the_same(
    family: str, shortened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    record_from = _Walk._record_from

    def noted(walk: _Walk, *given: object) -> object:
        rest = record_from(walk, *given)  # type: ignore[arg-type]
        left.append(len(rest))
        return rest

    with monkeypatch.context() as patch:
        patch.setattr(_Walk, "_record_from", noted)
        short = prune(family, tmp_path, "short")
    assert left.count(0) == shortened
    with monkeypatch.context() as patch:
        patch.setattr(_Walk, "_record_from", lambda walk, behind: walk.samples)
        assert prune(family, tmp_path, "whole").digest == short.digest


def test_another_visitors_outputs_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OWL sweeps the dense towers; pruning one of them later must not start from what they gave."""
    source, towers = SavedModel.find(str(pico.save("llava", tmp_path / "dense"))), []
    tower = Sweep.tower

    def noted(sweep: Sweep, *given: object) -> None:
        tower(sweep, *given)  # type: ignore[arg-type]
        towers.append(sweep._behind.visitor if sweep._behind else None)

    monkeypatch.setattr(Sweep, "tower", noted)
    Prune(PruneSettings(calibration=2, ratios="owl", target="50%")).run(source, tmp_path / "out")
    assert [type(visitor).__name__ for visitor in towers] == ["_Outliers", "_Outliers", "_PruneBlocks", "_PruneBlocks"]
    assert len(set(map(id, towers))) == 3, "each part has outliers of its own"
