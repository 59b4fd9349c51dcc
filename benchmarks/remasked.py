"""The baseline that shows why the mask belongs into the update: plain LoRA, merged densely, the mask applied again."""

from pathlib import Path

import torch
from torch import nn

from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.evaluate.compare import dense_twin
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.batches import Batches
from vlmc.toolchain.repair.checkpoints import Checkpoints
from vlmc.toolchain.repair.merging import merge
from vlmc.toolchain.repair.sparse_lora import AdapterPlan, attach
from vlmc.toolchain.repair.training import Trainer
from vlmc.toolchain.settings import RepairSettings


def lora_remasked(pruned: Checkpoint, options: RepairSettings, seed: int, scratch: Path) -> nn.Module:
    """Return a pruned artifact's model after LoRA on the same layers, merged and pruned by the same masks again.

    All else is RESSA's: data and their order, loss, teacher, rank, steps, rates, the adapters' first values, the
    interface's LoRA and the rounding of the merged weights.
    """
    assert pruned.artifact is not None
    model, masks = pruned.load(), load_masks(pruned.artifact.root, pruned.artifact.manifest)
    layers = [*masks, *pruned.family.adaptable(model)]
    adapters = attach(model, {name: AdapterPlan(options.rank, options.alpha) for name in layers}, seed)
    encoder = Encoder(pruned.load_processor(), pruned.family, model)
    batches = Batches(data.load(options.data, "train"), encoder, options.batch, seed)
    trainer = Trainer(adapters, dense_twin(pruned.artifact).load(), batches, options)
    trainer.train(Checkpoints(scratch, {}), Progress(quiet=True))
    merge(adapters, pruned.dtype)
    with torch.no_grad():
        for name, mask_OI in masks.items():
            model.get_parameter(f"{name}.weight").mul_(mask_OI)
    return model
