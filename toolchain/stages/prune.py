"""prune: from a dense model to an artifact whose layers hold a sparsity pattern."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact, Draft, Manifest, Origin
from vlmc.runtime.artifact.owned import beside
from vlmc.toolchain import data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models import source_card
from vlmc.toolchain.models.masks import save_masks
from vlmc.toolchain.models.origin import remember
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import copy_model, write_weights
from vlmc.toolchain.prune import ModelPruner, PrunedModel, check_options
from vlmc.toolchain.reporting.front_matter import SOURCE_CARD
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import CalibrationPrecision, PruneSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.run_folder import RunFolder, deciding

_NO_RESULT = {"spill", "max_bad"}
"""Options that do not change the result."""


class Prune(ArtifactStage):
    """Prune the towers one after the other, block by block, on calibration data.

    Finished blocks are kept beside the destination until all are done; with `resume` they are not pruned again.
    """

    name, accepts, produces = "prune", ("dense",), "pruned"

    def __init__(
        self,
        options: PruneSettings,
        seed: int = 0,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(group)
        self.options, self.seed, self.resume = options, seed, resume
        self.progress = progress or Progress(quiet=True)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=_NO_RESULT), "seed": self.seed}

    def requires(self, source: SavedModel) -> None:
        _ = source.family
        check_options(self.options, self.group)

    def inputs(self) -> dict[str, str]:
        return self._digests

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        with ThreadPoolExecutor(1) as beside:  # the dense files are hashed and copied while samples are encoded and run
            beside.submit(lambda: source.digest)
            copied = beside.submit(copy_model, source.folder, draft.root, code=source.trust)
            pruned = self._prune(source, draft.destination)
        copied.result()
        remember(source)
        write_weights(draft.root, pruned.journal.weights(pruned.blocks))
        save_masks(draft.root, pruned.journal.masks(pruned.blocks))
        origin = Origin(model=source.title, digest=source.digest)
        manifest = Manifest(family=source.family.name, state=self.produces, origin=origin, layers=pruned.layers, history=())
        told = source_card.said(source.folder)
        return manifest, pruned.measures() | ({SOURCE_CARD: told} if told else {})

    def assist(self, source: SavedModel, destination: Path) -> None:
        self._prune(source, destination)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)

    def leftovers(self, destination: Path) -> tuple[Path, ...]:
        return (_blocks(destination),)

    @cached_property
    def _samples(self) -> Sequence[Sample]:
        return data.load(self.options, "train", self.options.calibration, check=True, seed=self.seed)

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {"calibration": fingerprint(self._samples)}

    def _prune(self, source: SavedModel, destination: Path) -> PrunedModel:
        """Prune all blocks into a journal beside `destination`."""
        pruner = ModelPruner(source, self.options, self._take_samples(), self.seed, self.group, self.progress)
        identity = self._identity(source, pruner.precision) if self.group.is_main else {}
        run = RunFolder(_blocks(destination), identity, resume=self.resume)
        if self.group.is_main:
            run.open()
        self.group.wait()
        return pruner.prune(run.path)

    def _take_samples(self) -> Sequence[Sample]:
        """Return the samples, and forget them with what their files keep in memory: encoded ones are all that is needed."""
        samples = self._samples
        del self._samples
        return samples

    def _identity(self, source: SavedModel, precision: CalibrationPrecision) -> dict[str, Any]:
        """Return all that decides the result; `precision` is what `auto` comes to here."""
        made_from = {"source": source.digest, "data": self._digests, "versions": versions()}
        return {**deciding(self.settings()), **made_from, "precision": precision, "processes": self.group.size}


def _blocks(destination: Path) -> Path:
    return beside(destination, destination.name + ".blocks")
