"""Stage: requires, work, ensures, and one final `run` that keeps a killed or failed step from leaving anything behind."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, final

from vlmc.runtime.artifact import Artifact, Draft, Manifest, Step, write
from vlmc.runtime.errors import InputError
from vlmc.toolchain.card import card
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.team import Team
from vlmc.toolchain.versions import versions


class Stage(ABC):
    """One step of the chain. It reads a checkpoint, never changes it, and writes a new artifact."""

    name: ClassVar[str]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the whole configuration as JSON values: it goes into the history, and decides what may be resumed."""

    @abstractmethod
    def requires(self, source: Checkpoint) -> None:
        """Raise InputError when the source is not what this step works on."""

    @abstractmethod
    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        """Write the draft's files; return the manifest without this step's line, and the measures of that line."""

    def assist(self, source: Checkpoint, destination: Path) -> None:
        """Take part in the work of the process that leads, where several share one job.

        Raises:
            InputError: this step cannot be shared.
        """
        raise InputError(f"{self.name} runs in one process: start it without torchrun")

    @abstractmethod
    def ensures(self, result: Artifact) -> None:
        """Raise CheckFailed when the result does not hold what the step promises."""

    @final
    def run(self, source: Checkpoint, destination: Path, *, force: bool = False) -> Artifact:
        """Do the step and move its result to `destination` in one piece.

        Raises:
            InputError: the source or the destination cannot be used.
            CheckFailed: the result does not hold what the step promises; nothing is left at the destination.
        """
        self.requires(source)
        if not Team().is_main:
            self.assist(source, destination)
            Team().wait()
            return Artifact.open(destination)
        with write(destination, force=force) as draft:
            manifest, measures = self.work(source, draft)
            step = Step(
                stage=self.name, config=self.settings(), parent=source.digest, measures=measures, versions=versions()
            )
            complete = manifest.model_copy(update={"history": (*manifest.history, step)})
            (draft.root / "README.md").write_text(card(complete), encoding="utf-8")
            with ThreadPoolExecutor(1) as beside:
                sealed = beside.submit(draft.seal, complete)  # hashes the files while they are checked
                self.ensures(Artifact(draft.root, complete))
            sealed.result()
        Team().wait()
        return Artifact.open(destination)
