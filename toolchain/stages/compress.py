"""compress: prune -> repair -> merge -> verify-sparsity as one command that goes on where it was stopped.

Finished steps lie in `<out>.work/` until the last one stands at `<out>`. Every step is deterministic, so a run that was
killed and started again ends in the same bytes as one that was not.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.folder import MANIFEST
from vlmc.runtime.artifact.writing import check_destination, write_text
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair
from vlmc.toolchain.verify import ensure_sparsity
from vlmc.toolchain.versions import versions


class Compress:
    """The chain with its options; `run` does it."""

    def __init__(self, options: CompressSettings, seed: int = 0, progress: Progress | None = None) -> None:
        self.options, self.seed = options, seed
        self.progress = progress or Progress(quiet=True)

    def run(self, source: Checkpoint, out: Path, *, force: bool = False) -> Artifact:
        """Compress `source` into the artifact `out`, or go on with what an earlier run of the same left.

        Raises:
            InputError: `out` holds something else, or an unfinished run with other inputs or options; `force` drops both.
        """
        stages, current = self.stages(), source
        stages[0].requires(source)
        if not force and _was_made_by(out, source, stages):
            return Artifact.open(out)
        check_destination(out, force=force)
        work = out.with_name(out.name + ".work")
        _claim(work, self._identity(source), force=force)
        for number, stage in enumerate(stages, 1):
            last = number == len(stages)
            destination = out if last else work / f"{number}-{stage.name}"
            result = _finished(destination, last) or stage.run(current, destination, force=last and force)
            current = Checkpoint(str(destination), result.root)
        result = Artifact.open(out)
        ensure_sparsity(result)
        shutil.rmtree(work, ignore_errors=True)
        return result

    def stages(self) -> list[Stage]:
        """Return the steps in order."""
        prune = Prune(self.options.of(PruneSettings), self.seed, resume=True, progress=self.progress)
        if self.options.repair == "none":
            return [prune]
        repair = Repair(self.options.of(RepairSettings), seed=self.seed, resume=True, progress=self.progress)
        return [prune, repair, Merge(data=repair.options)] if repair.method.merged else [prune, repair]

    def _identity(self, source: Checkpoint) -> dict[str, Any]:
        steps = [{"stage": stage.name, **stage.settings()} for stage in self.stages()]
        return {"source": source.digest, "steps": steps, "versions": versions()}


def _was_made_by(out: Path, source: Checkpoint, stages: list[Stage]) -> bool:
    """Whether a whole artifact of exactly this run stands at `out` already."""
    if not (out / MANIFEST).is_file():
        return False
    manifest = Artifact.open(out).manifest
    done = [(step.stage, step.config, step.versions) for step in manifest.history]
    return manifest.origin.digest == source.digest and done == [(s.name, s.settings(), versions()) for s in stages]


def _claim(work: Path, identity: dict[str, Any], *, force: bool) -> None:
    """Make the work folder, or take over the one of an earlier run with the same identity."""
    text = json.dumps(identity, indent=2, sort_keys=True)
    note = work / "run.json"
    if work.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != text):
        if not force and note.is_file():
            raise InputError(f"{work} holds an unfinished run with other inputs or options: finish that one, or add --force")
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    write_text(note, text)


def _finished(destination: Path, last: bool) -> Artifact | None:
    return Artifact.open(destination) if not last and destination.is_dir() else None
