"""prune: from a dense checkpoint to an artifact whose layers hold a sparsity pattern."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact, Draft, Layer, Manifest, Origin, Part
from vlmc.runtime.artifact.writing import write_text
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain import data
from vlmc.toolchain.calibration.statistics import Need
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.calibration.walk import Feed, Sweep
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families import Family
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.masks import save_masks
from vlmc.toolchain.models.origin import remember
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import copy_model, write_weights
from vlmc.toolchain.models.streaming.weights import StreamedModel
from vlmc.toolchain.prune import PRUNERS, Pruner, with_dsnot, with_refit
from vlmc.toolchain.prune.blocks import Plan, prune_blocks
from vlmc.toolchain.prune.journal import Journal, PrunedLayer
from vlmc.toolchain.prune.patterns import by_layer, left_dense, parse, widths
from vlmc.toolchain.prune.precision import TYPES, choose_precision
from vlmc.toolchain.prune.ratios.allot import Blocks, allot, gradient_scores, outlier_scores
from vlmc.toolchain.prune.ratios.sharing import percentage
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import CalibrationPrecision, PruneSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.stages.run_folder import RunFolder, deciding

_NO_RESULT = {"spill", "max_bad"}  # options that leave the result as it is


class Prune(Stage):
    """Prune the towers one after the other, block by block, on calibration data.

    Finished blocks lie beside the destination until all are done; with `resume` a stopped run goes on from them.
    """

    name = "prune"

    def __init__(
        self, options: PruneSettings, seed: int = 0, *, resume: bool = False, progress: Progress | None = None
    ) -> None:
        self.options, self.seed, self.resume = options, seed, resume
        self.progress = progress or Progress(quiet=True)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json", exclude=_NO_RESULT), "seed": self.seed}

    @cached_property
    def patterns(self) -> dict[Part, SparsityPattern]:
        """The pattern of each tower that is pruned.

        Raises:
            InputError: a sparsity cannot be read, or both towers are left dense.
        """
        chosen = {Part.VISION: self.options.vision, Part.LANGUAGE: self.options.language}
        patterns = {part: parse(self.options.target if text is None else text) for part, text in chosen.items()}
        found = {part: pattern for part, pattern in patterns.items() if pattern is not None}
        if not found and not self.options.layers:
            raise InputError("nothing to prune: --vision and --language are both none")
        return found

    def requires(self, source: SavedModel) -> None:
        if source.artifact is not None:
            raise InputError(f"{source.name} is already {source.artifact.manifest.state}: prune a dense model")
        _ = source.family, self.patterns, self.pruner, choose_device(self.options.device)
        if self.options.tokens != "all" and Part.LANGUAGE not in self.patterns and not self.options.layers:
            raise InputError(f"--tokens {self.options.tokens} weighs tokens of the language model, which is left dense")
        if self.options.tokens != "all" and self.pruner.need is Need.NOTHING:
            raise InputError(f"--tokens {self.options.tokens}: {self.options.method} looks at no token: add --refit")
        if self.options.ratios != "uniform":
            for pattern in self.patterns.values():
                percentage(pattern, self.options.ratios)
        if self.options.reconstruct and ProcessGroup().size > 1:
            raise InputError("--reconstruct trains in one process: start it without torchrun")

    @cached_property
    def _samples(self) -> Sequence[Sample]:
        return data.load(self.options, "train", self.options.calibration, check=True, seed=self.seed)

    def inputs(self) -> dict[str, str]:
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {"calibration": fingerprint(self._samples)}

    @property
    def pruner(self) -> Pruner:
        """The method, with what follows it."""
        pruner = PRUNERS[self.options.method]
        pruner = with_dsnot(pruner) if self.options.dsnot else pruner
        return with_refit(pruner) if self.options.refit else pruner

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        with ThreadPoolExecutor(1) as beside:  # the dense files are hashed and copied while samples are encoded and run
            beside.submit(lambda: source.digest)
            copied = beside.submit(copy_model, source.folder, draft.root)
            pruned = self._prune(source, draft.root)
        copied.result()
        remember(source)
        layers, parts = pruned.layers(), pruned.parts
        write_weights(draft.root, pruned.journal.weights(pruned.blocks))
        save_masks(draft.root, pruned.journal.masks(pruned.blocks))
        manifest = Manifest(
            family=source.family.name,
            state="pruned",
            origin=Origin(model=source.title, digest=source.digest),
            layers={one.name: Layer(tensor=one.tensor, pattern=one.pattern, part=parts[one.name]) for one in layers},
            history=(),
        )
        raised = {one.name: one.raised_damping for one in layers if one.raised_damping is not None}
        notes = {"left_dense": pruned.odd, "raised_damping": raised, "reconstruction": pruned.reconstruction()}
        sparsity = 1 - sum(one.kept for one in layers) / sum(one.size for one in layers)
        told = {name: note for name, note in notes.items() if note}
        made = {"layers": len(layers), "sparsity": round(sparsity, 6), "precision": pruned.precision}
        return manifest, {**made, **told}

    def assist(self, source: SavedModel, destination: Path) -> None:
        self._prune(source, destination)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)

    def leftovers(self, result: Artifact) -> tuple[Path, ...]:
        return (_blocks(result.root),)

    def _prune(self, source: SavedModel, folder: Path) -> "_Pruned":
        """Prune all blocks into the journal in `folder`."""
        family, group, device = source.family, ProcessGroup(), choose_device(self.options.device)
        precision = group.tell(choose_precision(self.options.precision, source.folder, device))
        model = source.stream(device, TYPES[precision])
        self.progress.notice(family.notice)
        parts, processor = family.prunable(model.module), source.load_processor()
        patterns = by_layer(parts, self.patterns, self.options.layers)
        odd = left_dense(patterns, widths(model.module, patterns), allowed=self.options.allow_dense)
        patterns = {name: pattern for name, pattern in patterns.items() if name not in odd}
        feeds, tokens = self._calibration(model, family, Encoder(processor, family, model.module), group)
        run = RunFolder(_blocks(folder), self._identity(source, precision) if group.is_main else {}, resume=self.resume)
        if group.is_main:
            run.open()
        group.wait()
        sweep = Sweep(model, family, feeds, group, run.path / f"spill-{group.rank}" if self.options.spill else None)
        if self.options.ratios != "uniform":
            patterns |= self._allotted(source, sweep, patterns, parts, tokens, run.path / "ratios.json")
        plan = Plan(self.pruner, patterns, self.options.reconstruct_epochs if self.options.reconstruct else 0, self.seed)
        journal = Journal(run)
        blocks = prune_blocks(plan, sweep, journal, tokens, self.progress)
        return _Pruned(journal, blocks, parts, odd, precision)

    def _allotted(
        self,
        source: SavedModel,
        sweep: Sweep,
        patterns: Mapping[str, SparsityPattern],
        parts: Mapping[str, Part],
        tokens: Tokens | None,
        note: Path,
    ) -> dict[str, SparsityPattern]:
        """Return the patterns of the layers whose part's percentage is shared out; a resumed run finds them in `note`."""
        found: dict[str, SparsityPattern] = {}
        if note.is_file():
            return {name: SparsityPattern.parse(text) for name, text in json.loads(note.read_text()).items()}
        for part, target in self.patterns.items():
            layers = [name for name, pattern in patterns.items() if parts[name] is part and pattern == target]
            blocks = sweep.by_block(layers)
            scores = self._scores(source, sweep, part, blocks, tokens)
            found |= allot(self.options.ratios, target, blocks, scores, sweep.model.module)
        sweep.group.wait()
        if sweep.group.is_main:
            write_text(note, json.dumps({name: str(pattern) for name, pattern in found.items()}))
        return found

    def _scores(
        self, source: SavedModel, sweep: Sweep, part: Part, blocks: Blocks, tokens: Tokens | None
    ) -> dict[str, float]:
        """Score blocks; ECoFLaP's steps of a thousandth would be lost in any type but float32."""
        if self.options.ratios == "owl":
            return outlier_scores(sweep, part, blocks, tokens if part is Part.LANGUAGE else None)
        exact = Sweep(source.stream(sweep.model.device), sweep.family, sweep.feeds, sweep.group)
        with self.progress.task("ratios", len(blocks)) as bar:
            return gradient_scores(exact, blocks, self.seed, bar)

    def _calibration(
        self, model: StreamedModel, family: Family, encoder: Encoder, group: ProcessGroup
    ) -> tuple[list[Feed], Tokens | None]:
        """Return this process's share of the calibration samples, and the tokens of them that count."""
        samples = self._samples
        del self._samples  # and what its files keep in memory
        if len(samples) < group.size:
            raise InputError(f"{len(samples)} calibration samples cannot be shared by {group.size} processes")
        samples = group.share(samples)
        encode = encoder.answered if self.options.ratios == "ecoflap" else encoder.inputs  # only losses need labels
        feeds = [encode(sample) for sample in samples]
        visual = [family.visual_tokens(model.module, feed)[0] for feed in feeds]
        return feeds, Tokens.choose(self.options.tokens, visual, [one.id for one in samples])

    def _identity(self, source: SavedModel, precision: CalibrationPrecision) -> dict[str, Any]:
        """Return all that decides the result; `precision` is what `auto` came to here."""
        made_from = {"source": source.digest, "data": self._digests, "versions": versions()}
        return {**deciding(self.settings()), **made_from, "precision": precision, "processes": ProcessGroup().size}


@dataclass(frozen=True)
class _Pruned:
    """A journal with all blocks that were pruned, and what else the manifest tells."""

    journal: Journal
    blocks: list[str]
    parts: dict[str, Part]
    odd: dict[str, int]
    precision: CalibrationPrecision

    def layers(self) -> list[PrunedLayer]:
        """Return the layers that were pruned, in order of execution."""
        return [layer for block in self.blocks for layer in self.journal.layers(block)]

    def reconstruction(self) -> dict[str, dict[str, float]]:
        """Return the mean squared errors of the blocks that were trained, before and after."""
        trained = {block: self.journal.trained(block) for block in self.blocks}
        return {block: {"before": one.before, "after": one.after} for block, one in trained.items() if one is not None}


def _blocks(destination: Path) -> Path:
    return destination.with_name(destination.name.removesuffix(".partial") + ".blocks")
