"""Stages: each declares what it accepts and produces; one that writes an artifact leaves nothing behind if it is stopped."""

import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, final

from vlmc.runtime.artifact import Artifact, Draft, Manifest, State, Step, write
from vlmc.runtime.artifact.owned import OwnFolder
from vlmc.runtime.artifact.writing import check_destination, claimed
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.naming import named
from vlmc.toolchain.machine import durations
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.card import card
from vlmc.toolchain.settings import DATA_OPTIONS
from vlmc.toolchain.stages.states import ModelState, refusal, state_of

DATA = "data"
"""Name of the data's digests among a step's measures."""


class Stage(ABC):
    """One step on a model: `accepts` says in which states it takes one, `produces` what it makes of it.

    A stage that leaves the state as it is, such as export, produces None.
    """

    name: ClassVar[str]
    accepts: tuple[ModelState, ...]
    produces: State | None

    @final
    def check(self, source: SavedModel) -> None:
        """Check that this stage can work on the source.

        Raises:
            InputError: it is in another state, or something else about it does not fit.
        """
        if (state := state_of(source)) not in self.accepts:
            raise InputError(refusal(source.name, state, self.name, self.accepts))
        self.requires(source)

    @abstractmethod
    def requires(self, source: SavedModel) -> None:
        """Raise InputError when a source in an accepted state cannot be worked on all the same."""


class ArtifactStage(Stage):
    """A stage that reads a model, never changes it, and writes a new artifact.

    `group` holds the processes that share the work: by default this one, or those that a launcher started together.
    """

    produces: State

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self.group = group or ProcessGroup()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the whole configuration as JSON values: it goes into the history, and decides what may be resumed."""

    @final
    def recorded(self) -> dict[str, Any]:
        """Return the configuration as the history holds it: data sets by their names, without the paths to them."""
        settings = self.settings()
        return settings | {name: named(settings[name]) for name in DATA_OPTIONS if settings.get(name) is not None}

    @abstractmethod
    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        """Write the draft's files; return the manifest without this step's line, and the measures of that line."""

    def inputs(self) -> dict[str, str]:
        """Check all that this stage needs beside its source, and return the digests of the data that it reads, by their use.

        Raises:
            InputError: some of the data is not there, or cannot be used.
            EnvironmentLacks: something that the options ask for is not installed.
        """
        return {}

    def assist(self, source: SavedModel, destination: Path) -> None:
        """Take part in the work of the main process, where several share it.

        Raises:
            InputError: this stage cannot be shared.
        """
        raise InputError(f"{self.name} runs in one process: start it without torchrun")

    @abstractmethod
    def ensures(self, result: Artifact) -> None:
        """Raise CheckFailed when the result does not hold what the stage promises."""

    def leftovers(self, destination: Path) -> tuple[Path, ...]:
        """Return the folders that an interrupted run would be resumed from; they are deleted once the result is whole."""
        return ()

    @final
    def run(self, source: SavedModel, destination: Path, *, force: bool = False) -> Artifact:
        """Do the work and move the result to `destination` in one piece.

        Raises:
            InputError: the source or the destination cannot be used, or another process is writing the destination.
            CheckFailed: the result does not hold what the stage promises; nothing is left at the destination.
        """
        self.check(source)
        started = time.monotonic()
        with claimed(destination) if self.group.is_main else nullcontext():
            if self.group.is_main:
                self._check_places(destination, force=force)
            data = self.inputs()  # in every process: none waits for another that reads for long
            if self.group.is_main:
                self._write(source, destination, data, force=force)
            else:
                self.assist(source, destination)
            self.group.wait()
        made = Artifact.open(destination)
        if self.group.is_main:
            durations.note(made.digest, time.monotonic() - started)
        return made

    def _check_places(self, destination: Path, *, force: bool) -> None:
        check_destination(destination, force=force)
        for folder in self.leftovers(destination):
            OwnFolder(folder).check()

    def _write(self, source: SavedModel, destination: Path, data: dict[str, str], *, force: bool) -> None:
        with write(destination, force=force) as draft:
            manifest, measures = self.work(source, draft)
            measures |= {DATA: data} if data else {}
            step = Step(
                stage=self.name, config=self.recorded(), parent=source.digest, measures=measures, versions=versions()
            )
            complete = manifest.model_copy(update={"state": self.produces, "history": (*manifest.history, step)})
            (draft.root / "README.md").write_text(card(complete), encoding="utf-8")
            with ThreadPoolExecutor(1) as beside:
                sealed = beside.submit(draft.seal, complete)  # hashes the files while they are checked
                self.ensures(Artifact(draft.root, complete))
            sealed.result()
            for folder in self.leftovers(destination):
                OwnFolder(folder).remove()
