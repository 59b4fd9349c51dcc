"""prune: from a dense checkpoint to an artifact whose layers hold a sparsity pattern."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
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
from vlmc.toolchain.prune.statistics import Need, Statistics
from vlmc.toolchain.prune.sweep import Feed, sweep_tower
from vlmc.toolchain.prune.tokens import Tokens
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
        if self.options.tokens != "all" and Part.LANGUAGE not in self.patterns:
            raise InputError(f"--tokens {self.options.tokens} weighs tokens of the language model, which is left dense")
        if self.options.tokens != "all" and self.pruner.need is Need.NOTHING:
            raise InputError(f"--tokens {self.options.tokens}: {self.options.method} looks at no token: add --refit")

    @property
    def pruner(self) -> Pruner:
        """The method, with its refit where that is wanted."""
        pruner = PRUNERS[self.options.method]
        return with_refit(pruner) if self.options.refit else pruner

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        family, model, processor = source.family, source.load(), source.load_processor()
        odd = self._left_dense(family, model)
        serving = family.serving(model, processor)
        samples = data.load(self.options, "train", self.options.calibration, check=True, seed=self.seed)
        encoder = Encoder(processor, serving)
        feeds = [_unlabelled(encoder.answered(sample)) for sample in samples]
        visual = [family.visual_tokens(model, feed["input_ids"])[0] for feed in feeds]
        plan = Plan(self.pruner, self.patterns, Tokens.choose(self.options.tokens, visual, [one.id for one in samples]), odd)
        found = prune_model(model, family, plan, feeds, self.progress)
        masks = found.masks
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
        notes = {"left_dense": odd, "raised_damping": found.raised}
        told = {name: note for name, note in notes.items() if note}
        return manifest, {"layers": len(masks), "sparsity": _sparsity(masks), **told}

    def _left_dense(self, family: Family, model: nn.Module) -> dict[str, int]:
        """Return the input sizes, by name, of the layers whose rows do not fall into whole groups.

        Raises:
            InputError: there are some and they may not stay dense, or there are no others.
        """
        odd = indivisible(family, model, self.patterns)
        if odd and not self.options.allow_dense:
            listed = ", ".join(f"{name} ({width})" for name, width in list(odd.items())[:5])
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            raise InputError(
                f"the inputs of {len(odd)} layers are no multiple of the pattern's group: {listed}{more}; "
                "add --allow-dense to leave them dense"
            )
        if odd and len(odd) == sum(part in self.patterns for part in family.prunable(model).values()):
            raise InputError("nothing to prune: no layer's inputs are a multiple of the pattern's group")
        return odd

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)


@dataclass(frozen=True)
class Plan:
    """How a model is pruned: by what, each part to which pattern, which tokens count, which layers are left dense."""

    pruner: Pruner
    patterns: Mapping[Part, SparsityPattern]
    tokens: Tokens | None = None
    dense: Collection[str] = ()


@dataclass(frozen=True)
class Found:
    """What pruning came to, by the layers' names: boolean keep-masks (O, I), and dampings that had to be raised."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    raised: dict[str, float] = field(default_factory=dict)


def prune_model(model: nn.Module, family: Family, plan: Plan, feeds: list[Feed], progress: Progress) -> Found:
    """Prune a model in place."""
    found = Found()
    towers = [tower for tower in family.towers if tower.part in plan.patterns]
    with progress.task("prune", sum(len(family.blocks(model, tower)) for tower in towers)) as bar:
        for tower in towers:
            prune = partial(_prune_block, plan, plan.patterns[tower.part], found, bar.advance)
            tokens = plan.tokens if tower.part is Part.LANGUAGE else None
            sweep_tower(model, family, tower, feeds, plan.pruner.need, prune, tokens)
    return found


def _prune_block(
    plan: Plan,
    pattern: SparsityPattern,
    found: Found,
    done: Callable[[], None],
    prefix: str,
    block: nn.Module,
    statistics: Mapping[str, Statistics],
) -> None:
    for inner, layer in linears(block):
        name, seen = f"{prefix}.{inner}", statistics[inner]
        if name in plan.dense:
            continue
        weight_OI, found.masks[name] = plan.pruner.prune(layer.weight.detach(), seen, pattern)
        layer.weight.data.copy_(weight_OI)
        if seen.raised_damping is not None:
            found.raised[name] = seen.raised_damping
    done()


def indivisible(family: Family, model: nn.Module, patterns: Mapping[Part, SparsityPattern]) -> dict[str, int]:
    """Return the input size, by the layer's name, of those to be pruned whose rows do not fall into whole groups."""
    parts = family.prunable(model)
    widths = {name: int(str(model.get_submodule(name).in_features)) for name, part in parts.items() if part in patterns}
    return {name: width for name, width in widths.items() if not patterns[parts[name]].divides(width)}


def _unlabelled(encoded: dict[str, Tensor]) -> Feed:
    return {name: tensor for name, tensor in encoded.items() if name != "labels"}


def _sparsity(masks: Mapping[str, Tensor]) -> float:
    kept = sum(int(mask.sum()) for mask in masks.values())
    return round(1 - kept / sum(mask.numel() for mask in masks.values()), 6)
