"""The methods that are compared, each a model with adapters on the same weights, with the same A and B.

Shapes: O out features, I in features, R rank; `*` any leading dimensions.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from lora_steps.subject import Pairs, Subject
from vlmc.toolchain.repair.adapters import attach
from vlmc.toolchain.repair.methods import AdapterSpec, LoRA, SparseLoRA
from vlmc.toolchain.repair.methods.low_rank import LowRank

LORA = "plain LoRA (peft)" if find_spec("peft") else "plain LoRA (vlmc's: peft is not installed)"
AUTOGRAD, LORS, OURS = "RESSA by autograd", "LoRS gradient", "RESSA, ours"


@dataclass(frozen=True)
class Contestant:
    """A model with adapters, and their A and B by the name of the layer."""

    model: nn.Module
    pairs: dict[str, tuple[nn.Parameter, nn.Parameter]]

    def forget(self) -> None:
        """Drop the gradients."""
        for pair in self.pairs.values():
            for parameter in pair:
                parameter.grad = None

    def gradients(self) -> Pairs:
        """Return dA and dB of the last step."""
        return {name: (cast(Tensor, a_RI.grad), cast(Tensor, b_OR.grad)) for name, (a_RI, b_OR) in self.pairs.items()}


def contestants(subject: Subject, pairs: Pairs) -> dict[str, Contestant]:
    """Return every method on this subject, plain LoRA first."""
    return {
        LORA: _by_peft(subject, pairs) if find_spec("peft") else _attached(subject, pairs, LoRA),
        AUTOGRAD: by_autograd(subject, subject.twin(), pairs),
        LORS: _whole(subject, subject.twin(), pairs, ByLoRS),
        OURS: _attached(subject, pairs, SparseLoRA),
    }


def by_autograd(subject: Subject, model: nn.Module, pairs: Pairs) -> Contestant:
    """Put adapters on a twin of the subject's model whose gradients autograd finds."""
    return _whole(subject, model, pairs, ByAutograd)


class Whole(nn.Module, ABC):
    """`y = x (W + s (B A) * M)^T + bias`, with mask and masked weight whole in memory."""

    mask_OI: Tensor

    def __init__(self, linear: nn.Linear, mask_OI: Tensor, pair: tuple[Tensor, Tensor], scale: float) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = linear.weight, linear.bias, scale
        self.lora_A, self.lora_B = (nn.Parameter(torch.empty_like(one)) for one in pair)
        self.register_buffer("mask_OI", mask_OI)


class ByAutograd(Whole):
    """The formula itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        hat_OI = torch.addcmul(self.weight, self.mask_OI, self.lora_B @ self.lora_A, value=self.scale)
        return F.linear(x, hat_OI, self.bias)


class ByLoRS(Whole):
    """LoRS's gradient (arXiv 2501.08582, section 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (*, I) to (*, O)."""
        pair = self.lora_A, self.lora_B
        y: Tensor = _LoRS.apply(x, self.weight, self.bias, self.mask_OI, *pair, self.scale)  # type: ignore[no-untyped-call]
        return y


class _LoRS(Function):
    """Makes W_hat again for dx, and drops the mask in dA and dB."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        mask_OI: Tensor,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_OI, mask_OI, a_RI, b_OR)
        ctx.scale = scale
        return F.linear(x, torch.addcmul(weight_OI, mask_OI, b_OR @ a_RI, value=scale), bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight_OI, mask_OI, a_RI, b_OR = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = grad @ torch.addcmul(weight_OI, mask_OI, b_OR @ a_RI, value=ctx.scale)
        x_LI, grad_LO = x.flatten(0, -2), grad.flatten(0, -2)
        da_RI, db_OR = ctx.scale * (grad_LO @ b_OR).T @ x_LI, ctx.scale * grad_LO.T @ (x_LI @ a_RI.T)
        return dx, None, None, None, da_RI, db_OR, None


def _whole(subject: Subject, model: nn.Module, pairs: Pairs, kind: type[Whole]) -> Contestant:
    _attach(subject, model, pairs, dict.fromkeys(subject.interface, LoRA))
    for name, mask_OI in subject.masks.items():
        linear = cast(nn.Linear, model.get_submodule(name))
        model.set_submodule(name, kind(linear, mask_OI, pairs[name], subject.scale))
    return _filled(model, pairs, ("lora_A", "lora_B"))


def _attached(subject: Subject, pairs: Pairs, kind: type[LowRank]) -> Contestant:
    model = subject.twin()
    _attach(subject, model, pairs, dict.fromkeys(subject.masks, kind) | dict.fromkeys(subject.interface, LoRA))
    return _filled(model, pairs, ("lora_A", "lora_B"))


def _attach(subject: Subject, model: nn.Module, pairs: Pairs, kinds: Mapping[str, type[LowRank]]) -> None:
    """Attach vlmc's own adapters; plain LoRA is given no mask."""
    plan = {}
    for name, kind in kinds.items():
        rank = len(pairs[name][0])
        plan[name] = AdapterSpec(kind, rank, subject.scale * rank, subject.masks[name] if kind is SparseLoRA else None)
    attach(model, plan)


def _by_peft(subject: Subject, pairs: Pairs) -> Contestant:
    from peft import LoraConfig, inject_adapter_in_model

    rank = len(next(iter(pairs.values()))[0])
    config = LoraConfig(r=rank, lora_alpha=subject.scale * rank, target_modules=list(pairs))
    model: nn.Module = inject_adapter_in_model(config, subject.twin())
    return _filled(model, pairs, ("lora_A.default.weight", "lora_B.default.weight"))


def _filled(model: nn.Module, pairs: Pairs, parts: tuple[str, str]) -> Contestant:
    """Give the adapters on this model their values; `parts` are what A and B are called in a layer."""
    own = {}
    for name, pair in pairs.items():
        layer = model.get_submodule(name)
        own[name] = layer.get_parameter(parts[0]), layer.get_parameter(parts[1])
        for parameter, value in zip(own[name], pair, strict=True):
            parameter.data.copy_(value)
    return Contestant(model, own)
