"""prune: from a dense checkpoint to an artifact whose layers hold a sparsity pattern."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from vlmc.runtime.artifact import Artifact, Draft, Layer, Manifest, Origin, Part
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.families import Family
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.masks import save_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.prune import PRUNERS, Pruner, with_refit
from vlmc.toolchain.prune.statistics import Statistics
from vlmc.toolchain.prune.sweep import Feed, sweep_tower
from vlmc.toolchain.saving import save_model, tensor_names
from vlmc.toolchain.settings import PruneSettings
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.verify import ensure_sparsity


class Prune(Stage):
    """Prune the towers one after the other, block by block, on calibration data."""

    name = "prune"

    def __init__(self, options: PruneSettings, seed: int = 0, progress: Progress | None = None) -> None:
        self.options, self.seed = options, seed
        self.progress = progress or Progress(quiet=True)

    def settings(self) -> dict[str, Any]:
        return {**self.options.model_dump(mode="json"), "seed": self.seed}

    @cached_property
    def patterns(self) -> dict[Part, SparsityPattern]:
        """The pattern of each tower that is pruned.

        Raises:
            InputError: a sparsity cannot be read, or both towers are left dense.
        """
        chosen = {Part.VISION: self.options.vision, Part.LANGUAGE: self.options.language}
        texts = {part: self.options.target if text is None else text for part, text in chosen.items()}
        patterns = {part: SparsityPattern.parse(text) for part, text in texts.items() if text != "none"}
        if not patterns:
            raise InputError("nothing to prune: --vision and --language are both none")
        return patterns

    def requires(self, source: Checkpoint) -> None:
        if source.artifact is not None:
            raise InputError(f"{source.name} is already {source.artifact.manifest.state}: prune a dense model")
        _ = source.family, self.patterns

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        family, model, processor = source.family, source.load(), source.load_processor()
        check_divisible(family, model, self.patterns)
        serving = family.serving(model, processor)
        samples = data.load(self.options.data, "train", self.options.calibration)
        encoder = Encoder(processor, serving)
        feeds = [_unlabelled(encoder.answered(sample)) for sample in samples]
        pruner = PRUNERS[self.options.method]
        pruner = with_refit(pruner) if self.options.refit else pruner
        masks = prune_model(model, family, pruner, self.patterns, feeds, self.progress)
        save_model(model, source, draft.root)
        tensors = tensor_names(model, draft.root, masks)
        save_masks(draft.root, {tensors[name]: mask for name, mask in masks.items()})
        parts = family.prunable(model)
        manifest = Manifest(
            family=family.model_type,
            state="pruned",
            origin=Origin(model=source.name, digest=source.digest),
            layers={
                name: Layer(tensor=tensors[name], pattern=str(self.patterns[parts[name]]), part=parts[name])
                for name in masks
            },
            serving=serving,
            history=(),
        )
        return manifest, {"layers": len(masks), "sparsity": _sparsity(masks)}

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)


def prune_model(
    model: nn.Module,
    family: Family,
    pruner: Pruner,
    patterns: Mapping[Part, SparsityPattern],
    feeds: list[Feed],
    progress: Progress,
) -> dict[str, Tensor]:
    """Prune a model in place; return the boolean keep-mask (O, I) of every pruned layer by its name."""
    masks: dict[str, Tensor] = {}
    towers = [tower for tower in family.towers if tower.part in patterns]
    total = sum(len(family.blocks(model, tower)) for tower in towers)
    with progress.task("prune", total) as bar:
        for tower in towers:
            prune = _block_pruner(pruner, patterns[tower.part], masks, bar.advance)
            sweep_tower(model, family, tower, feeds, pruner.need, prune)
    return masks


def _block_pruner(
    pruner: Pruner, pattern: SparsityPattern, masks: dict[str, Tensor], done: Callable[[], None]
) -> Callable[[str, nn.Module, dict[str, Statistics]], None]:
    def prune(prefix: str, block: nn.Module, statistics: dict[str, Statistics]) -> None:
        for name, layer in linears(block):
            weight_OI, mask_OI = pruner.prune(layer.weight.detach(), statistics[name], pattern)
            layer.weight.data.copy_(weight_OI)
            masks[f"{prefix}.{name}"] = mask_OI
        done()

    return prune


def check_divisible(family: Family, model: nn.Module, patterns: Mapping[Part, SparsityPattern]) -> None:
    """Raise InputError, listing them, when rows of some layers do not fall into whole groups."""
    parts = family.prunable(model)
    widths = {name: model.get_submodule(name).in_features for name, part in parts.items() if part in patterns}
    odd = [f"{name} ({width})" for name, width in widths.items() if not patterns[parts[name]].divides(int(str(width)))]
    if odd:
        raise InputError(f"{len(odd)} layers' inputs are no multiple of the pattern's group: {', '.join(odd[:5])}")


def _unlabelled(encoded: dict[str, Tensor]) -> Feed:
    return {name: tensor for name, tensor in encoded.items() if name != "labels"}


def _sparsity(masks: Mapping[str, Tensor]) -> float:
    kept = sum(int(mask.sum()) for mask in masks.values())
    return round(1 - kept / sum(mask.numel() for mask in masks.values()), 6)
