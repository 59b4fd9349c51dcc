"""The twins of an artifact's model: the dense model, and the sparse one with an adapter that was not merged.

Shapes: O out features, I in features, R the adapter's rank.
"""

from collections.abc import Iterable

import torch
from accelerate.hooks import add_hook_to_module
from torch import Tensor, nn
from torch.nn import functional as F

from vlmc.runtime.artifact import Manifest

RANK = 16
"""Of the adapter, where the artifact was never repaired."""


def leave_adapters_apart(model: nn.Module, layers: Iterable[str], rank: int) -> None:
    """Give these Linear layers an adapter of their own that the merged weight already holds: it adds zeros, in LoRA's time.

    RESSA's own adapter is masked, and would take longer unmerged: it has to form the product B A.
    """
    for number, name in enumerate(layers):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Apart(model.get_submodule(name), rank, number))


def rank_of(manifest: Manifest) -> int:
    """Return the rank that the model was repaired with."""
    ranks = [step.config["rank"] for step in manifest.history if "rank" in step.config]
    return int(ranks[-1]) if ranks else RANK


class Apart(nn.Linear):
    """y = x W^T + bias + (x A^T) B^T, with A (R, I) and B (O, R); with one A for all, exporters would merge them."""

    def __init__(self, linear: nn.Module, rank: int, seed: int) -> None:
        assert isinstance(linear, nn.Linear)
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Linear(self.in_features, rank, bias=False)
        self.lora_b = nn.Linear(rank, self.out_features, bias=False)
        draw = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.lora_a.weight, std=self.in_features**-0.5, generator=draw)
        nn.init.zeros_(self.lora_b.weight)
        reading = getattr(linear, "_hf_hook", None)
        if reading is not None:  # the weight is read from its file whenever the layer runs
            add_hook_to_module(self, reading)

    def forward(self, input: Tensor) -> Tensor:
        plain: Tensor = F.linear(input, self.weight, self.bias)
        adapted: Tensor = self.lora_b(self.lora_a(input))
        return plain + adapted
