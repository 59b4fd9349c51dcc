"""Pruning a whole model: opened, its layers given their patterns, calibrated, and pruned into a journal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Layer, Part
from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration import Calibration, encode
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune.blocks import Pruning, prune_blocks
from vlmc.toolchain.prune.journal import Journal, PrunedLayer
from vlmc.toolchain.prune.options import pruner_of, targets_of
from vlmc.toolchain.prune.patterns import by_layer, left_dense, refuse_nothing, widths
from vlmc.toolchain.prune.precision import TYPES, choose_precision
from vlmc.toolchain.prune.ratios import allot, gradient_scores, outlier_scores
from vlmc.toolchain.settings import CalibrationPrecision, PruneSettings


class ModelPruner:
    """A dense model with its calibration samples, ready to be pruned as the options say.

    Of several processes each takes its share of the samples; all must make the same calls.

    Raises:
        InputError: an option does not fit the model, or the samples cannot be used.
    """

    def __init__(
        self,
        source: SavedModel,
        options: PruneSettings,
        samples: Sequence[Sample],
        seed: int,
        group: ProcessGroup,
        progress: Progress,
    ) -> None:
        self.options, self.seed, self.progress = options, seed, progress
        device = choose_device(options.device)
        self.precision = group.tell(choose_precision(options.precision, source.folder, device))
        model, family = source.stream(device, TYPES[self.precision]), source.family
        progress.notice(family.notice)
        self.parts, processor = family.prunable(model.module), source.load_processor()
        patterns = by_layer(self.parts, targets_of(options), options.layers)
        inputs_of = widths(model.module, patterns)
        self.left_dense = left_dense(patterns, inputs_of, allowed=options.allow_dense)
        self.patterns = {name: pattern for name, pattern in patterns.items() if name not in self.left_dense}
        refuse_nothing(self.patterns, inputs_of)
        encoder, labels = Encoder(processor, family, model.module), options.ratios == "ecoflap"
        inputs, tokens = encode(samples, encoder, model, group, options.tokens, labels=labels)
        self._calibration = Calibration(model, family, inputs, group, tokens)
        self._exact = partial(source.stream, device)

    def prune(self, folder: Path) -> "PrunedModel":
        """Prune all blocks into the journal in `folder`, where an interrupted run is resumed."""
        spill = folder / f"spill-{self._calibration.group.rank}" if self.options.spill else None
        calibration = replace(self._calibration, spill=spill)
        if self.options.ratios != "uniform":
            self.patterns |= self._shared_out(calibration, folder / "ratios.json")
        epochs = self.options.reconstruct_epochs if self.options.reconstruct else 0
        pruning, journal = Pruning(pruner_of(self.options), self.patterns, epochs, self.seed), Journal(folder)
        blocks = prune_blocks(pruning, calibration, journal, self.progress)
        return PrunedModel(journal, blocks, self.parts, self.left_dense, self.precision)

    def _shared_out(self, calibration: Calibration, note: Path) -> dict[str, SparsityPattern]:
        """Return the patterns of the layers whose part's percentage is shared out; a resumed run finds them in `note`."""
        if note.is_file():
            return {name: SparsityPattern.parse(text) for name, text in json.loads(note.read_text()).items()}
        found: dict[str, SparsityPattern] = {}
        for part, target in targets_of(self.options).items():
            layers = [name for name, one in self.patterns.items() if self.parts[name] is part and one == target]
            blocks = calibration.by_block(layers)
            scores = self._scores(calibration, blocks)
            found |= allot(self.options.ratios, target, blocks, scores, calibration.model.module)
        calibration.group.wait()
        if calibration.group.is_main:
            write_text(note, json.dumps({name: str(pattern) for name, pattern in found.items()}))
        return found

    def _scores(self, calibration: Calibration, blocks: dict[str, list[str]]) -> dict[str, float]:
        """Score blocks; ECoFLaP's steps of a thousandth would be lost in any type but float32."""
        if self.options.ratios == "owl":
            return outlier_scores(calibration, blocks)
        with self.progress.task("ratios", len(blocks)) as bar:
            return gradient_scores(replace(calibration, model=self._exact()), blocks, self.seed, bar)


@dataclass(frozen=True)
class PrunedModel:
    """A journal with all blocks that were pruned, and what else the artifact tells of them."""

    journal: Journal
    blocks: list[str]
    parts: dict[str, Part]
    left_dense: dict[str, int]
    precision: CalibrationPrecision

    @property
    def layers(self) -> dict[str, Layer]:
        """The pruned layers in order of execution, as the manifest has them."""
        noted = self._noted()
        return {one.name: Layer(tensor=one.tensor, pattern=one.pattern, part=self.parts[one.name]) for one in noted}

    def measures(self) -> dict[str, Any]:
        """Return what was measured, for the history."""
        noted = self._noted()
        trained = {block: self.journal.trained(block) for block in self.blocks}
        sparsity = 1 - sum(one.kept for one in noted) / sum(one.size for one in noted)
        always = {"layers": len(noted), "sparsity": round(sparsity, 6), "precision": self.precision}
        rest = {
            "left_dense": self.left_dense,
            "raised_damping": {one.name: one.raised_damping for one in noted if one.raised_damping is not None},
            "reconstruction": {block: {"before": one.before, "after": one.after} for block, one in trained.items() if one},
        }
        return always | {name: measure for name, measure in rest.items() if measure}

    def _noted(self) -> list[PrunedLayer]:
        return [layer for block in self.blocks for layer in self.journal.layers(block)]
