"""The processes that train together: one, or those that `accelerate launch` or `torchrun` started.

Each holds the whole model and takes a part of every batch; gradients are added up once a step. What is trained is small, so
nothing more is needed, and unlike DistributedDataParallel this knows how many answer tokens each process saw.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import nn

Value = TypeVar("Value")


class Team:
    """This process among the others, over NCCL where there are GPUs, else gloo; all must make the same calls in order."""

    def __init__(self) -> None:
        state = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
        self.size, self.rank = int(state.num_processes), int(state.process_index)
        self.device = torch.device(state.device)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def tell(self, value: Value) -> Value:
        """Return what the main process gave."""
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

    def close(self) -> None:
        """Leave the group; there is none for a process alone."""
        if self.size > 1:
            dist.destroy_process_group()
