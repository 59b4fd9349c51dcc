"""The processes that share one job: one, or those that `accelerate launch` or `torchrun` started.

Pruning shares the calibration samples and the layers. In training each takes a part of every batch; gradients are added up
once a step. What is trained is small and whole in each, so nothing more is needed, and unlike DistributedDataParallel this
knows how many answer tokens each process saw. Frozen weights may be sharded: see `repair.training.loading`.
"""

import atexit
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

Value = TypeVar("Value")


class ProcessGroup:
    """This process among the others, over NCCL where there are GPUs, else gloo; all must make the same calls in order."""

    def __init__(self) -> None:
        state = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
        self.size, self.rank = int(state.num_processes), int(state.process_index)
        self.device = torch.device(state.device)
        if self.size > 1:
            atexit.unregister(_leave)
            atexit.register(_leave)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> Sequence[Value]:
        """Return this process's share of the items: every one in `size`."""
        return items[self.rank :: self.size]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def send(self, tensor: Tensor, owner: int) -> None:
        """Fill a tensor, which has the same shape everywhere, with what the owner's holds."""
        if self.size > 1:
            dist.broadcast(tensor, owner)

    def wait(self) -> None:
        """Wait until all processes get here."""
        if self.size > 1:
            dist.barrier()

    def tell(self, value: Value) -> Value:
        """Return the main process's value."""
        told = [value]
        if self.size > 1:
            dist.broadcast_object_list(told, src=0, device=self.device)
        return told[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, each in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return [float(one) for one in sums.tolist()]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        gradients = [one.grad for one in parameters if one.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
