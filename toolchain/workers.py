"""The processes that share one job, as `torchrun` or `accelerate launch` start them; a single process is a job of one."""

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")


class Workers:
    """This process among its peers, which talk through torch.distributed: gloo on CPUs, NCCL on GPUs."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        if self.count > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group()
                atexit.register(distributed.destroy_process_group)

    @staticmethod
    def first() -> bool:
        """Whether this process is the one that speaks to the user; peers need not be there yet."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share of the items: every count-th."""
        return items[self.rank :: self.count]

    def add_up(self, tensors: "Iterable[Tensor]") -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            from torch import distributed

            for tensor in tensors:
                distributed.all_reduce(tensor)

    def send(self, tensor: "Tensor", owner: int) -> None:
        """Fill a tensor, which has the same shape everywhere, with what the owner's holds."""
        if self.count > 1:
            from torch import distributed

            distributed.broadcast(tensor, owner)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()
