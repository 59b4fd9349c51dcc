"""What the stages accept and produce: the chain fits together, and a model in another state is refused with what to do."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests import pico
from vlmc.runtime.artifact import State
from vlmc.runtime.errors import InputError
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import CompressSettings, PruneSettings
from vlmc.toolchain.stages.compress import Compress
from vlmc.toolchain.stages.export import Export
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair
from vlmc.toolchain.stages.states import ModelState, refusal


@pytest.mark.parametrize(("repair", "produces"), [("none", "pruned"), ("lora", "adapted"), ("ressa", "merged")])
def test_each_stage_of_the_chain_accepts_what_the_one_before_produces(repair: str, produces: State) -> None:
    chain = Compress(CompressSettings.model_validate({"repair": repair}))
    assert all(later.produces is not None and one.produces in later.accepts for one, later in pairwise(chain.stages))
    assert (chain.accepts, chain.produces) == (("dense",), produces)


@pytest.mark.parametrize(
    ("stage", "state", "message"),
    [
        (Prune, "pruned", "m is already pruned: prune a dense model"),
        (Compress, "merged", "m is already merged: compress a dense model"),
        (Repair, "dense", "m is dense: repair a pruned artifact, as 'vlmc prune m' writes it"),
        (Repair, "merged", "m is already merged: repair a pruned artifact"),
        (Merge, "dense", "m is dense: merge a repaired artifact, as 'vlmc repair' writes it"),
        (Merge, "pruned", "m is pruned: merge a repaired artifact, as 'vlmc repair m' writes it"),
        (
            Export,
            "adapted",
            "m is repaired, but its adapter is not merged: export a pruned artifact or a merged artifact, as 'vlmc merge m' "
            "writes it",
        ),
    ],
)
def test_another_state_is_refused_with_what_to_do(
    stage: type[Prune | Compress | Repair | Merge | Export], state: ModelState, message: str
) -> None:
    assert refusal("m", state, stage.name, stage.accepts) == message


class Two(ProcessGroup):
    """The first of two processes, which never talk."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2


def test_the_processes_are_those_that_a_stage_is_given(tmp_path: Path) -> None:
    source = SavedModel.find(str(pico.save("llava", tmp_path / "dense")))
    options = PruneSettings(reconstruct=True)
    Prune(options).check(source)
    with pytest.raises(InputError, match="--reconstruct trains in one process: start it without torchrun"):
        Prune(options, group=Two()).check(source)
