"""Early stopping: the validation losses so far, and the parameters of the best one."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlmc.toolchain.repair.training.checkpoints import State

_LOSSES, _BEST = "validation", "best."


class EarlyStopping:
    """Decides when to stop; without patience it only keeps the losses."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.losses: dict[int, float] = {}
        self._best: dict[str, Tensor] = {}

    @property
    def over(self) -> bool:
        """Whether none of the last `patience` validations was a new best."""
        return self.patience is not None and len(self.losses) - self._place_of_best() >= self.patience

    def note(self, step: int, loss: float, parameters: Mapping[str, nn.Parameter]) -> None:
        """Add the loss after this many steps, and keep the parameters if it is the best."""
        self.losses[step] = loss if math.isfinite(loss) else math.inf
        if self.patience is not None and self._place_of_best() == len(self.losses):
            self._best = {name: one.detach().clone() for name, one in parameters.items()}

    def restore_best(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Restore the best parameters; without patience, leave the last ones."""
        for name, tensor in self._best.items():
            parameters[name].data.copy_(tensor)

    def state(self) -> State:
        """Return the state for `restore`."""
        losses = torch.tensor(list(self.losses.items()), dtype=torch.float64).reshape(-1, 2)
        return {_LOSSES: losses} | {_BEST + name: tensor for name, tensor in self._best.items()}

    def restore(self, state: State) -> None:
        """Restore what `state` returned."""
        self.losses = {int(step): loss for step, loss in state[_LOSSES].tolist()}
        self._best = {name.removeprefix(_BEST): one for name, one in state.items() if name.startswith(_BEST)}

    def _place_of_best(self) -> int:
        """Return which validation, counted from 1, was the first with the lowest loss."""
        losses = list(self.losses.values())
        return losses.index(min(losses)) + 1 if losses else 0
