"""compress: prune -> repair -> merge -> verify-sparsity -> report as one command that resumes an interrupted run.

Stages write into `<out>.work/` until the last one is finished and moved to `<out>`. Every stage is deterministic, so a run
that was killed and started again ends in the same bytes as one that was not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.folder import MANIFEST
from vlmc.runtime.artifact.owned import OwnFolder, beside
from vlmc.runtime.artifact.writing import check_destination, claimed, replace
from vlmc.runtime.errors import InputError
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import pruner_of
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.reporting.layers import measure_layers
from vlmc.toolchain.reporting.report import write_report
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings
from vlmc.toolchain.stages.base import DATA, ArtifactStage, Stage
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair
from vlmc.toolchain.stages.run_folder import RunFolder, deciding, difference

_REMEDY = "finish that one, or add --force to start over"


class Compress(Stage):
    """The stages that the options ask for, one after the other."""

    name, accepts = "compress", Prune.accepts

    def __init__(self, options: CompressSettings, seed: int = 0, progress: Progress | None = None) -> None:
        self.options = options
        self.stages = _stages(options, seed, progress or Progress(quiet=True))
        self.produces = self.stages[-1].produces

    def requires(self, source: SavedModel) -> None:
        self.stages[0].requires(source)
        moves = pruner_of(self.options.of(PruneSettings)).moves or self.options.reconstruct
        distilled = self.options.repair != "none" and METHODS[self.options.repair].distilled
        if self.options.teacher == "shared" and distilled and moves:
            told = "--teacher shared: this pruning changes weights that it keeps"
            raise InputError(f"{told}: choose copy or cached, or prune with --method wanda")

    def run(self, source: SavedModel, out: Path, *, force: bool = False) -> Artifact:
        """Compress `source` into the artifact `out`, or resume an interrupted run with the same inputs and options.

        All that the stages read is opened first, their data as a whole: its digests say whether a run is the same.

        Raises:
            InputError: an input cannot be used, or `out` holds something else, or an unfinished run with other inputs or
                options; `force` drops both.
        """
        self.check(source)
        with claimed(out):
            check_destination(out, force=True)
            work = beside(out, out.name + ".work")
            OwnFolder(work).check()
            run = RunFolder(work, _identity(source, self.stages), resume=True, remedy=_REMEDY)
            if not force and (out / MANIFEST).is_file():
                made = _made_by(out, run.identity)
                if run.is_resumable() or run.is_going():  # killed after the artifact stood
                    run.remove()
                return made
            _claim(run, force=force)
            return self._work(source, out, run, force=force)

    def _work(self, source: SavedModel, out: Path, run: RunFolder, *, force: bool) -> Artifact:
        current = source
        try:
            for number, stage in enumerate(self.stages, 1):
                destination = run.path / f"{number}-{stage.name}"
                result = Artifact.open(destination) if destination.is_dir() else stage.run(current, destination)
                current = SavedModel(str(destination), destination, source.trust)
        finally:
            if _is_bare(run.path):
                run.remove()
        ensure_sparsity(result)
        write_report(result, measure_layers(result, source))
        replace(result.root, out, force=force)
        run.remove()
        return Artifact.open(out)


def _stages(options: CompressSettings, seed: int, progress: Progress) -> list[ArtifactStage]:
    prune = Prune(options.of(PruneSettings), seed, resume=True, progress=progress)
    if options.repair == "none":
        return [prune]
    repair = Repair(options.of(RepairSettings), seed=seed, resume=True, progress=progress)
    return [prune, repair, Merge(data=repair.options)] if repair.method.merged else [prune, repair]


def _identity(source: SavedModel, stages: list[ArtifactStage]) -> dict[str, Any]:
    """Return all that decides the result; the data counts by its digests, wherever it is."""
    steps = {stage.name: _step(stage.recorded(), stage.inputs(), versions()) for stage in stages}
    return {"source": source.digest, "steps": list(steps), **steps}


def _step(settings: Mapping[str, Any], data: Mapping[str, str], made: Mapping[str, str]) -> dict[str, Any]:
    return {**deciding(settings), DATA: dict(data), "versions": dict(made)}


def _made_by(out: Path, identity: Mapping[str, Any]) -> Artifact:
    """Return the artifact at `out` if exactly this run made it.

    Raises:
        InputError: another run did; the message says how it differs.
    """
    artifact = Artifact.open(out)
    history = artifact.manifest.history
    steps = {step.stage: _step(step.config, step.measures.get(DATA, {}), step.versions) for step in history}
    found = {"source": artifact.manifest.origin.digest, "steps": [step.stage for step in history], **steps}
    if differs := difference(found, identity):
        raise InputError(
            f"{out} is from another run: {differs}; add --force to replace it or name another folder with --out"
        )
    return artifact


def _claim(run: RunFolder, *, force: bool) -> None:
    """Make the work folder, or take over that of an earlier run with the same identity.

    Raises:
        InputError: it holds another run, and `force` is not given.
    """
    try:
        run.open()
    except InputError:
        if not force and not _is_bare(run.path):
            raise
        run.remove()
        run.open()


def _is_bare(work: Path) -> bool:
    """Whether a work folder holds nothing yet but marks and locks, which are hidden files."""
    return work.is_dir() and not any(path.is_file() and not path.name.startswith(".") for path in work.rglob("*"))
