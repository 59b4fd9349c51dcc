"""What a step costs: its time, the peak of its memory, what autograd keeps of its forward pass; and its gradients.

Peak memory is what is held before the step (weights, masks, adapters, what is given) plus the peak of what it allocates, by
torch.profiler's record of every allocation; scratch memory inside the BLAS is not seen.
"""

import gc
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from math import sqrt
from weakref import ref

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from lora_steps.contestants import Contestant
from lora_steps.subject import Pairs, Subject


def seconds(
    found: Mapping[str, Contestant], subject: Subject, repeats: int, *, checkpointed: bool
) -> dict[str, list[float]]:
    """Return every method's times, taken in turns after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats + 1):
        for name, one in found.items():
            one.forget()
            began = time.perf_counter()
            subject.step(one.model, checkpointed=checkpointed)
            times[name].append(time.perf_counter() - began)
            one.forget()
    return {name: taken[1:] for name, taken in times.items()}


@dataclass(frozen=True)
class Seen:
    """Bytes at the peak of a step, bytes kept for its backward pass beyond those held before it, and dA and dB."""

    peak: int
    kept: int
    gradients: Pairs


class Saved:
    """The storages that autograd saves, by address, taken when the backward pass first asks for something.

    What is saved and let go before that does not count, and its address may be another's by then.
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._references: list[ref[Tensor]] = []

    def pack(self, tensor: Tensor) -> Tensor:
        """Note what is saved."""
        tensor = tensor.detach()  # an output that is saved as it is would hold its own graph
        self._references.append(ref(tensor))
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        """Give back what was saved."""
        self.sizes = self.sizes or storages(one for reference in self._references if (one := reference()) is not None)
        return tensor


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of the storages of these tensors, by address."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def observe(one: Contestant, subject: Subject) -> Seen:
    """Look at a step, which is not the method's first."""
    held, saved = storages(chain(one.model.parameters(), one.model.buffers(), subject.given)), Saved()
    one.forget()
    gc.collect()
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record,
        saved_tensors_hooks(saved.pack, saved.unpack),
    ):
        subject.step(one.model)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    deltas = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    kept = sum(size for place, size in saved.sizes.items() if place not in held)
    seen = Seen(sum(held.values()) + max(accumulate(deltas)), kept, one.gradients())
    one.forget()
    return seen


def cosine(found: Pairs, truth: Pairs, parts: tuple[int, ...]) -> float:
    """Return the cosine of all layers' gradients together: parts 0 for A, 1 for B."""
    dots = [0.0, 0.0, 0.0]
    for name, true in truth.items():
        for part in parts:
            mine, other = found[name][part].double(), true[part]
            for place, (left, right) in enumerate(((mine, other), (mine, mine), (other, other))):
                dots[place] += float((left * right).sum())
    return dots[0] / sqrt(dots[1] * dots[2])
