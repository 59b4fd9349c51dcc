"""Assembling: from a pruned artifact and the options of a run to its trainer."""

from functools import partial
from pathlib import Path

from torch import Tensor

from vlmc.runtime.artifact import Artifact, Part
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.masks import load_packed
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.distillation import Cached, Copy, Shared, Teacher, View, cache_folder, pruned_away
from vlmc.toolchain.repair.feeding import Batches, TrainingData, own_indices
from vlmc.toolchain.repair.loading import Loading, Sharded, Whole, recompute, shards
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.repair.training.trainer import Trainer
from vlmc.toolchain.settings import RepairSettings


class Assembly:
    """A pruned model, `source`, which is also opened as `artifact`, and the dense model that teaches it.

    `dense` is None for a method that is not distilled.
    """

    def __init__(
        self,
        source: SavedModel,
        artifact: Artifact,
        dense: SavedModel | None,
        options: RepairSettings,
        seed: int,
        group: ProcessGroup,
    ) -> None:
        self.source, self.artifact, self.dense = source, artifact, dense
        self.options, self.seed, self.group = options, seed, group

    def trainer(self, data: TrainingData, folder: Path) -> Trainer:
        """Load the model, attach the adapters, and return what trains them; a teacher may keep files in the folder."""
        options, family = self.options, self.source.family
        loading, masks = self._load(self.source), load_packed(self.artifact.root, self.artifact.manifest)
        dense_layers, method = family.adaptable(loading.model), METHODS[options.method]
        specs = method.specs(masks, dense_layers, options.rank, options.alpha, options.kernel)
        adapters = attach(loading.model, specs, self.seed)
        model = loading.settle(adapters.parameters().values())
        if options.gradient_checkpointing:
            recompute(model, [name for tower in family.towers for name, _ in family.blocks(model, tower)])
        train, validation = data.batches(Encoder(self.source.load_processor(), family, model))
        view = View(self._hidden_blocks(adapters), options.precision)
        teacher = None if self.dense is None else self._teacher(self.dense, adapters, masks, train, view, folder)
        return Trainer(adapters, teacher, train, options, group=self.group, view=view, validation=validation)

    def _load(self, model: SavedModel) -> Loading:
        kind = Sharded if shards(self.group) else Whole
        return kind(model, self.options.precision, self.group)

    def _hidden_blocks(self, adapters: Adapters) -> list[str]:
        """Return the blocks whose hidden states the loss uses: those of the last tower of language."""
        if not self.options.hidden:
            return []
        family = self.source.family
        towers = [tower for tower in family.towers if tower.part is Part.LANGUAGE]
        return [name for name, _ in family.blocks(adapters.model, towers[-1])]

    def _teacher(
        self,
        dense: SavedModel,
        adapters: Adapters,
        masks: dict[str, Tensor],
        train: Batches,
        view: View,
        folder: Path,
    ) -> Teacher:
        """Return the teacher that the options name; `auto` is `shared` where that is possible, else `copy`."""
        options = self.options

        def copy() -> Copy:
            return Copy(self._load(dense).settle(), view)

        if options.teacher == "cached":
            steps = range(options.steps)
            places = (place for step in steps for place in own_indices(train, step, self.group))
            where, look = cache_folder(folder, self.group), partial(view.of, adapters.model)
            return Cached(where, options, self.seed, batches=train, places=places, dense=copy, look=look)
        if options.teacher == "copy":
            return copy()
        root, layers = self.artifact.root, self.artifact.manifest.layers
        pruned = pruned_away(root, dense.folder, layers, masks, adapters)
        if pruned is None and options.teacher == "shared":
            raise InputError(f"--teacher shared: pruning changed weights that {root} keeps: choose copy or cached")
        return copy() if pruned is None else Shared(adapters, pruned, view)
