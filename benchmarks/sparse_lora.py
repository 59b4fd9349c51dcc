"""One layer's training step by four methods: plain LoRA, RESSA by autograd through the masked weight, LoRS's gradient, ours.

A step is forward and backward in float32 on the CPU, with and without activation checkpointing; the input asks for its
gradient, as it does inside a model. Peak memory is what the step holds before it begins (weight, mask, adapter, input,
gradient of the output) plus the peak of what it allocates, by torch.profiler's record of every allocation; scratch memory
inside the BLAS is not seen. Kept bytes are the storages that autograd saves beyond those already held.
Shapes: L tokens, O out features, I in features, R rank.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import accumulate
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from report import Bar, Report, Row, arguments, command, finish, measured, prepare, report
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.repair.adapters import AdapterPlan
from vlmc.toolchain.repair.masked_linear import TILE
from vlmc.toolchain.repair.methods import LoRA, SparseLoRA

LORA = "plain LoRA (peft)" if find_spec("peft") else "plain LoRA (vlmc's: peft is not installed)"
AUTOGRAD, LORS, OURS = "RESSA by autograd", "LoRS gradient", "RESSA, ours"
STEP, CHECKPOINTED, PEAK, KEPT = "step", "step, checkpointed", "peak memory", "kept for backward"
COSINES = ("cosine of dA", "cosine of dB")
SHAPES = {"1024": (1024, 1024), "2048": (2048, 2048), "4096": (4096, 4096), "11008": (11008, 4096)}
"""Out and in features of each layer; the last is the widest of a 7B model's."""


@dataclass(frozen=True)
class Work:
    """How much is done: tokens in the input, rank of the adapter, repeats of each step."""

    tokens: int
    rank: int
    repeats: int


class Layer:
    """A pruned weight, its mask, an adapter, an input and the gradient of the output: the same for every method."""

    def __init__(self, shape: tuple[int, int], work: Work) -> None:
        rows, columns = shape
        draw = torch.Generator().manual_seed(0)
        weight_OI = torch.randn(shape, generator=draw) / columns**0.5
        self.mask_OI = SparsityPattern.parse("2:4").mask(weight_OI.abs())
        self.weight_OI, self.scale = weight_OI * self.mask_OI, 2.0
        self.a_RI = torch.randn(work.rank, columns, generator=draw) / columns**0.5
        self.b_OR = torch.randn(rows, work.rank, generator=draw) / rows**0.5
        self.x_LI = torch.randn(work.tokens, columns, generator=draw).requires_grad_()
        self.grad_LO = torch.randn(work.tokens, rows, generator=draw)

    def linear(self) -> nn.Linear:
        """Return the pruned Linear."""
        rows, columns = self.weight_OI.shape
        linear = nn.utils.skip_init(nn.Linear, columns, rows, bias=False)
        linear.weight = nn.Parameter(self.weight_OI, requires_grad=False)
        return linear

    def truth(self) -> tuple[Tensor, Tensor]:
        """Return dA (R, I) and dB (O, R) of the masked update in float64."""
        masked_OI = (self.grad_LO.double().T @ self.x_LI.detach().double()).mul_(self.mask_OI)
        return self.scale * self.b_OR.double().T @ masked_OI, self.scale * masked_OI @ self.a_RI.double().T


@dataclass(frozen=True)
class Method:
    """A way to compute the layer: its map, the parameters A and B, and what it holds all the time."""

    forward: Callable[[Tensor], Tensor]
    a_RI: nn.Parameter
    b_OR: nn.Parameter
    held: list[Tensor]

    def step(self, layer: Layer, *, checkpointed: bool = False) -> None:
        """Do one forward and backward pass, from no gradients."""
        self.a_RI.grad = self.b_OR.grad = layer.x_LI.grad = None
        y_LO = checkpoint(self.forward, layer.x_LI, use_reentrant=False) if checkpointed else self.forward(layer.x_LI)
        y_LO.backward(layer.grad_LO)


class _LoRS(Function):
    """Recomputes W_hat for dx and drops the mask in dA and dB (arXiv 2501.08582, section 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, mask_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, weight_OI, mask_OI, a_RI, b_OR)
        ctx.scale = scale
        return F.linear(x, torch.addcmul(weight_OI, mask_OI, b_OR @ a_RI, value=scale))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight_OI, mask_OI, a_RI, b_OR = ctx.saved_tensors
        dx = grad @ torch.addcmul(weight_OI, mask_OI, b_OR @ a_RI, value=ctx.scale)
        return dx, None, None, ctx.scale * (grad @ b_OR).T @ x, ctx.scale * grad.T @ (x @ a_RI.T), None


def methods(layer: Layer, work: Work) -> dict[str, Method]:
    """Return every method on this layer, plain LoRA first."""
    adapter = AdapterPlan(SparseLoRA, work.rank, layer.scale * work.rank, layer.mask_OI)
    ours = SparseLoRA(layer.linear(), adapter, torch.Generator())
    a_RI, b_OR = nn.Parameter(layer.a_RI.clone()), nn.Parameter(layer.b_OR.clone())
    ours.lora_A, ours.lora_B = a_RI, b_OR
    weight_OI, mask_OI, scale = layer.weight_OI, layer.mask_OI, layer.scale

    def autograd(x: Tensor) -> Tensor:
        return F.linear(x, torch.addcmul(weight_OI, mask_OI, b_OR @ a_RI, value=scale))

    def lors(x: Tensor) -> Tensor:
        return _LoRS.apply(x, weight_OI, mask_OI, a_RI, b_OR, scale)  # type: ignore[no-any-return]

    return {
        LORA: _plain(layer, work),
        AUTOGRAD: Method(autograd, a_RI, b_OR, [weight_OI, mask_OI]),
        LORS: Method(lors, a_RI, b_OR, [weight_OI, mask_OI]),
        OURS: Method(ours, a_RI, b_OR, [weight_OI, ours.packed()]),
    }


def _plain(layer: Layer, work: Work) -> Method:
    alpha = layer.scale * work.rank
    if find_spec("peft"):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=work.rank, lora_alpha=alpha, target_modules=["0"])
        model = get_peft_model(nn.Sequential(layer.linear()), config)
        adapted = model.base_model.model[0]
        a_RI, b_OR = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    else:
        adapted = LoRA(layer.linear(), AdapterPlan(LoRA, work.rank, alpha), torch.Generator())
        a_RI, b_OR = adapted.lora_A, adapted.lora_B
    a_RI.data.copy_(layer.a_RI)
    b_OR.data.copy_(layer.b_OR)
    return Method(adapted, a_RI, b_OR, [layer.weight_OI])


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--layers", nargs="+", choices=SHAPES, default=list(SHAPES), help="which layers [default: all]")
    chosen = parser.parse_args(given)
    prepare(chosen)
    work = Work(64, 16, 1) if chosen.quick else Work(2048, 16, 3)
    finish(run(chosen.layers, work, command("sparse_lora", given)), "sparse_lora", chosen)


def run(names: Sequence[str], work: Work, line: str) -> Report:
    """Measure every layer."""
    rows = []
    for name in names:
        rows += rows_of(name, work)
        print(f"{name}: done", file=sys.stderr, flush=True)
    settings = {"layers": list(names), "tokens": work.tokens, "rank": work.rank, "repeats": work.repeats, "tile": TILE}
    return report(line, rows, bars_of(rows), {**settings, "dtype": "float32", "device": "cpu"})


def rows_of(name: str, work: Work) -> list[Row]:
    """Return one layer's rows: times, memory, cosines to the true gradient."""
    layer = Layer(SHAPES[name], work)
    found, truth = methods(layer, work), layer.truth()
    memory = {method: (peak_bytes(one, layer), kept_bytes(one, layer)) for method, one in found.items()}
    cosines = {method: _cosines(one, layer, truth) for method, one in found.items()}
    rows = []
    for metric in (STEP, CHECKPOINTED):
        rows += _timed(name, metric, seconds(found, layer, work.repeats, checkpointed=metric == CHECKPOINTED))
    for metric, values in (
        (PEAK, {it: one[0] for it, one in memory.items()}),
        (KEPT, {it: one[1] for it, one in memory.items()}),
    ):
        base = measured(f"{name}: {LORA}", metric, [values[LORA] / 2**20], "MiB")
        rows += [base, *(measured(f"{name}: {it}", metric, [values[it] / 2**20], "MiB", base) for it in list(values)[1:])]
    for index, metric in enumerate(COSINES):
        rows += [Row(f"{name}: {it}", None, metric, round(one[index], 6), "", None, None) for it, one in cosines.items()]
    return rows


def seconds(found: dict[str, Method], layer: Layer, repeats: int, *, checkpointed: bool) -> dict[str, list[float]]:
    """Return every method's times, taken in turns after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats + 1):
        for name, method in found.items():
            began = time.perf_counter()
            method.step(layer, checkpointed=checkpointed)
            times[name].append(time.perf_counter() - began)
    return {name: taken[1:] for name, taken in times.items()}


def _timed(name: str, metric: str, times: dict[str, list[float]]) -> list[Row]:
    """Return rows of medians; the ratio is the median of the ratios within a round."""
    rows = []
    for method, taken in times.items():
        row = measured(f"{name}: {method}", metric, [1e3 * median(taken)], "ms")
        row = replace(row, spread=round(1e3 * (max(taken) - min(taken)), 3))
        if method != LORA:
            ratio = median(one / other for one, other in zip(taken, times[LORA], strict=True))
            row = replace(row, baseline=f"{name}: {LORA}", ratio=round(ratio, 4))
        rows.append(row)
    return rows


def peak_bytes(method: Method, layer: Layer) -> int:
    """Return what is held before a step and the peak of what it allocates."""
    method.step(layer)
    method.a_RI.grad = method.b_OR.grad = layer.x_LI.grad = None
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        y_LO = method.forward(layer.x_LI)
        y_LO.backward(layer.grad_LO)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    deltas = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    held = [*method.held, method.a_RI, method.b_OR, layer.x_LI, layer.grad_LO]
    return sum(one.untyped_storage().nbytes() for one in held) + max(accumulate(deltas))


def kept_bytes(method: Method, layer: Layer) -> int:
    """Return the bytes that autograd saves for the backward pass beyond what is held anyway."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y_LO = method.forward(layer.x_LI)
    held = {one.untyped_storage().data_ptr() for one in [*method.held, method.a_RI, method.b_OR, layer.x_LI]}
    del y_LO
    return sum(size for place, size in saved.items() if place not in held)


def _cosines(method: Method, layer: Layer, truth: tuple[Tensor, Tensor]) -> list[float]:
    method.step(layer)
    grads = [one.grad for one in (method.a_RI, method.b_OR)]
    return [_cosine(grad.double(), true) for grad, true in zip(grads, truth, strict=True) if grad is not None]


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()))


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Return what the issue asks, each for the layer where it is furthest from it."""
    ours = [row for row in rows if row.name.endswith(OURS)]

    def at_most(metric: str, goal: float) -> Bar:
        worst = max(row.ratio or 0.0 for row in ours if row.metric == metric)
        return Bar(f"{metric}, ours to plain LoRA's, worst layer", f"at most {goal:g} times", worst, worst <= goal)

    least = min(row.value or 0.0 for row in ours if row.metric in COSINES)
    return [
        at_most(PEAK, 1.05),
        at_most(STEP, 1.5),
        at_most(CHECKPOINTED, 1.35),
        Bar("cosine to the true gradient, ours, worst layer", "above 0.9999", least, least > 0.9999),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
