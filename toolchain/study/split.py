"""sweep: prune a model in every way of a plan, evaluate each result, and draw the figures.

The study is the first one of "Rethinking Pruning for Vision-Language Models" (arXiv 2404.02424). No variant depends on
another: each is pruned from the model's own files, so a study that was killed and started again ends in the same bytes.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.locking import exclusive
from vlmc.runtime.artifact.owned import OwnFolder, beside
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.trials import Trials
from vlmc.toolchain.families import Family
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import targets_of
from vlmc.toolchain.prune.patterns import by_layer, indivisible, refuse_nothing, widths
from vlmc.toolchain.settings import MethodSettings, PruneSettings, SweepSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.study import figures
from vlmc.toolchain.study.plan import DENSE, NONE, Plan, Variant
from vlmc.toolchain.study.record import Key, Measured, Record, claim, key


class SplitStudy:
    """A study with its options; `run` does it."""

    def __init__(self, options: SweepSettings, seed: int = 0, progress: Progress | None = None) -> None:
        self.options, self.seed = options, seed
        self.progress = progress or Progress(quiet=True)

    def run(self, source: SavedModel, out: Path, *, force: bool = False) -> Record:
        """Do the study in the folder `out`, or resume an interrupted run of the same study there.

        Raises:
            EnvironmentLacks: matplotlib is not installed.
            InputError: the model, the data or an option cannot be used, or `out` holds something else.
        """
        figures.require()
        plan = Plan.of(self.options)
        samples = list(data.load(self.options, "validation", self.options.count, check=True))
        fresh = self._record(source, plan, samples, self._check(source, plan))
        place = out.resolve()
        claim(out, fresh, force=force)  # before a lock is put beside what is somebody else's
        with exclusive(place):
            measured = claim(out, fresh, force=force)
            bench = Bench(source, samples, OwnFolder(beside(place, place.name + ".partial")), self.seed)
            record = self._measure(plan, fresh, measured, bench, out)
            figures.draw(record, out)
        return record

    def settings_of(self, variant: Variant) -> PruneSettings:
        """Return how a variant is pruned; a token policy means nothing where language stays dense."""
        chosen = self.options.model_dump(include=set(MethodSettings.model_fields))
        chosen |= {"data": self.options.calibration_data or self.options.data, "split": None}
        chosen["tokens"] = "all" if variant.language == NONE else self.options.tokens
        return PruneSettings(vision=variant.vision, language=variant.language, **chosen)

    def _check(self, source: SavedModel, plan: Plan) -> dict[str, int]:
        """Check everything that could stop the study halfway; return how many prunable weights each tower has.

        Raises:
            InputError: the model, the calibration data or an option cannot be used.
        """
        stages = [Prune(self.settings_of(variant), self.seed) for variant in plan.variants if variant != DENSE]
        for stage in stages:
            stage.check(source)
        family, model = source.family, source.stream(torch.device("cpu")).module
        for stage in stages:
            _refuse_indivisible(stage, family, model)
        return _prunable(family, model)

    def _calibration(self, options: PruneSettings) -> str:
        """Return the fingerprint of the calibration samples."""
        return fingerprint(data.load(options, "train", options.calibration, check=True, seed=self.seed))

    def _record(self, source: SavedModel, plan: Plan, samples: Sequence[Sample], prunable: dict[str, int]) -> Record:
        calibration = self._calibration(self.settings_of(next(one for one in plan.variants if one != DENSE)))
        return Record(
            model=source.name,
            digest=source.digest,
            settings={**self.options.model_dump(mode="json"), "seed": self.seed},
            versions=versions(),
            data={"questions": fingerprint(samples), "calibration": calibration},
            questions=len(samples),
            prunable=prunable,
            skipped=plan.skipped,
            left=len(plan.variants),
        )

    def _measure(self, plan: Plan, fresh: Record, measured: dict[Key, Measured], bench: "Bench", out: Path) -> Record:
        """Measure what is not measured yet; each result is on the disk before the next variant begins."""
        variants = {key(variant): variant for variant in plan.variants}
        record = fresh.with_rows(plan, measured)
        with self.progress.task("sweep", len(variants), done=len(measured)) as bar:
            for found, variant in variants.items():
                if found in measured:
                    continue
                measured[found] = bench.measure(None if variant == DENSE else self.settings_of(variant))
                record = fresh.with_rows(plan, measured)
                record.write(out)
                bar.advance(f"{variant.vision} : {variant.language}, {measured[found].accuracy:.1%}")
        return record


class Bench:
    """Prunes a model and evaluates the result; the pruned model is kept in `scratch` and deleted afterwards."""

    def __init__(self, source: SavedModel, samples: Sequence[Sample], scratch: OwnFolder, seed: int) -> None:
        scratch.remove()  # what a killed study left; InputError before any work where it is not vlmc's
        self.trials, self.scratch, self.seed = Trials(source, samples), scratch, seed

    def measure(self, options: PruneSettings | None) -> Measured:
        """Measure one variant, or the dense model where there are no options."""
        if options is None:
            return Measured(accuracy=self.trials.dense().accuracy.overall, zeros=0)
        try:
            pruned, trial = self.trials.pruned(options, self.scratch.make() / "pruned", self.seed)
            return Measured(accuracy=trial.accuracy.overall, zeros=_zeros(pruned.folder))
        finally:
            self.scratch.remove()


def _zeros(folder: Path) -> int:
    """Return how many weights the masks of a pruned model prune."""
    masks = load_masks(folder, Artifact.open(folder).manifest)
    return sum(int((~mask).sum()) for mask in masks.values())


def _prunable(family: Family, model: nn.Module) -> dict[str, int]:
    """Return how many prunable weights each tower has."""
    counts: Counter[str] = Counter()
    for name, part in family.prunable(model).items():
        counts[str(part)] += model.get_parameter(f"{name}.weight").numel()
    return dict(counts)


def _refuse_indivisible(stage: Prune, family: Family, model: nn.Module) -> None:
    """Refuse, before any work, what the stage would refuse later: a target that does not divide the layers' inputs.

    Raises:
        InputError: layers' rows are not whole groups of the pattern, and may not stay dense, or there are no others; or the
            target prunes nothing.
    """
    targets = targets_of(stage.options)
    patterns = by_layer(family.prunable(model), targets, {})
    inputs = widths(model, patterns)
    refuse_nothing(patterns, inputs)
    odd, layers = indivisible(patterns, inputs), len(patterns)
    if odd and (len(odd) == layers or not stage.options.allow_dense):
        name, width = next(iter(odd.items()))
        remedy = "take it out of --targets" if len(odd) == layers else "add --allow-dense to leave them dense"
        raise InputError(
            f"--targets {next(iter(targets.values()))}: the inputs of {len(odd)} of {layers} layers are not a multiple "
            f"of the pattern's group, the first {name} ({width}): {remedy}"
        )
