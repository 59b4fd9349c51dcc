"""The training of adapters: AdamW, a cosine with a short warm-up, clipped gradients, float32.

Nothing in a step draws random numbers (the model stays in evaluation mode, and the order of the data follows from the
seed), so a run that goes on from a checkpoint ends in the same bytes as one that was never stopped.
"""

import math
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapters import Adapters
from vlmc.toolchain.repair.batches import Batches, answer_logits
from vlmc.toolchain.repair.checkpoints import Checkpoints, State
from vlmc.toolchain.repair.losses import ressa_loss
from vlmc.toolchain.settings import RepairSettings

CLIP = 1.0
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of one parameter
WARM_UP = 100  # steps, or a tenth of a shorter run


class Record(NamedTuple):
    """What one step did: a row of `reports/repair.csv`."""

    lr: float
    loss: float
    task: float
    kl: float


class Trainer:
    """Trains the adapters of a student against its dense teacher."""

    def __init__(self, adapters: Adapters, teacher: nn.Module, batches: Batches, options: RepairSettings) -> None:
        self.adapters, self.teacher, self.batches, self.options = adapters, teacher, batches, options
        self.parameters = list(adapters.parameters().values())
        self.peak = options.lr or default_rate(adapters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.peak, weight_decay=0.0, fused=True)
        self.records: list[Record] = []

    def train(self, checkpoints: Checkpoints, progress: Progress) -> list[Record]:
        """Train from the checkpoint, or from the start where there is none; return one record for each step.

        Raises:
            CheckFailed: the loss or the gradient is not finite; the last checkpoint stays.
        """
        if (state := checkpoints.open()) is not None:
            self.restore(state)
        with progress.task("repair", self.options.steps, done=len(self.records)) as bar:
            while len(self.records) < self.options.steps:
                record = self.step()
                bar.advance(f"loss {record.loss:.3f} kl {record.kl:.3f}")
                if len(self.records) % self.options.checkpoint_every == 0 or len(self.records) == self.options.steps:
                    checkpoints.save(self.state())
        return self.records

    def step(self) -> Record:
        """Do the next step."""
        number = len(self.records)
        rate = learning_rate(number, self.options.steps, self.peak)
        batch = self.batches.at(number)
        with torch.no_grad():
            teacher_NV = answer_logits(self.teacher, batch)
        student_NV = answer_logits(self.adapters.model, batch)
        losses = ressa_loss(student_NV, teacher_NV, batch.answers_N, self.options.task_weight, self.options.kl)
        record = Record(rate, *(float(loss.detach()) for loss in losses))
        norm = self._backward(losses.total)
        if not math.isfinite(record.loss) or not math.isfinite(norm):
            raise CheckFailed(
                f"repair broke off at step {number + 1}: loss {record.loss:.4g}, gradient norm {norm:.4g}; "
                "lower --lr or --alpha"
            )
        self._descend(rate)
        self.records.append(record)
        return record

    def state(self) -> State:
        """Return all that the next steps depend on: parameters, AdamW's moments and count, and the records so far."""
        state: State = {"records": torch.tensor(self.records, dtype=torch.float64)}
        for name, parameter in self.adapters.parameters().items():
            state[name] = parameter.detach()
            # a layer whose output is never used has no gradient, and AdamW no state for it
            state |= {f"{name}.{key}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        return state

    def restore(self, state: State) -> None:
        """Take up what `state` returned; the trainer must be built as that one was."""
        self.records = [Record(*row) for row in state["records"].tolist()]
        for name, parameter in self.adapters.parameters().items():
            parameter.data.copy_(state[name])
            moments = {key: state[f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in state}
            if moments:
                self.optimizer.state[parameter] = moments

    def _backward(self, loss: Tensor) -> float:
        """Compute and clip the gradients; return their norm from before."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(nn.utils.clip_grad_norm_(self.parameters, CLIP))

    def _descend(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()


def default_rate(adapters: Adapters) -> float:
    """Return a peak rate for layers of this width: 5e-3 at the demo's 64 (measured), near the paper's 1e-4 at 4096.

    Between them it falls as 1 / width, as Adam's rate for hidden matrices should (arXiv 2203.03466, table 8).
    """
    return 0.32 / median(layer.weight.shape[1] for layer in adapters.layers.values())


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step counted from 0: a linear rise to the peak, then a cosine down to a tenth of it."""
    warm = min(WARM_UP, steps // 10)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - 1 - warm)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
