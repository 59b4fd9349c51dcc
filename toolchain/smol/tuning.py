"""The third stage of training `smol`: LoRA (arXiv 2106.09685) on the language model, merged into it by `join`.

Shapes: O out features, I in features, R rank.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.toolchain.repair.adapters.attaching import Adapters, attach
from vlmc.toolchain.repair.methods import AdapterSpec, LoRA

_BLOCKS = "model.text_model.layers."


def adapt(model: Any, rank: int, seed: int) -> Adapters:
    """Freeze the whole model and put an adapter that changes nothing yet on every Linear of the language model's blocks."""
    named = (name for name, module in model.named_modules() if name.startswith(_BLOCKS) and isinstance(module, nn.Linear))
    return attach(model, {name: AdapterSpec(LoRA, rank, alpha=rank) for name in named}, seed)


@torch.no_grad()
def fill(adapters: Adapters, weights: Mapping[str, Tensor]) -> None:
    """Give adapters the weights of a training, as `Adapters.parameters` names them."""
    for name, parameter in adapters.parameters().items():
        parameter.copy_(weights[name])


@torch.no_grad()
def merge(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Add B A to the weight (O, I) of every layer that has an adapter (R, I) and (O, R) among these weights."""
    for name in (name.removesuffix(".lora_A") for name in weights if name.endswith(".lora_A")):
        weight_OI = model.get_parameter(f"{name}.weight")
        weight_OI.addmm_(weights[f"{name}.lora_B"].float(), weights[f"{name}.lora_A"].float())
