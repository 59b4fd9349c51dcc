"""The training of adapters: AdamW, a cosine schedule with a short warm-up, clipped gradients.

A step draws no random numbers (the model stays in evaluation mode, and the order of the data follows from the seed), so a
run resumed from a checkpoint ends in the same bytes as one that was never stopped.
"""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import nn

from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.repair.adapters import Adapters
from vlmc.toolchain.repair.distillation import Losses, Teacher, View, repair_loss, task_loss
from vlmc.toolchain.repair.feeding import Batch, Batches, Prefetch, split
from vlmc.toolchain.repair.loading import restore_scaler, scaler, scaler_state
from vlmc.toolchain.repair.training.board import board
from vlmc.toolchain.repair.training.checkpoints import Checkpoints, State
from vlmc.toolchain.repair.training.schedule import learning_rate, peak_rate
from vlmc.toolchain.repair.training.stopping import EarlyStopping
from vlmc.toolchain.settings import RepairSettings

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of one parameter
SKIPS = 10  # so many steps in a row with a loss or gradient that is not finite end the run


class StepLog(NamedTuple):
    """One step: a row of `reports/repair.csv`; a step with `skipped` = 1 changed no parameter."""

    lr: float
    loss: float
    task: float
    kl: float
    hidden: float
    norm: float
    skipped: float


class Trainer:
    """Trains the adapters of a student, with the dense teacher where there is one.

    `group` are the processes that share each batch, `view` is what is read from the models, `validation` the data for
    early stopping.

    Raises:
        InputError: a batch has fewer samples than there are passes over all processes.
    """

    def __init__(
        self,
        adapters: Adapters,
        teacher: Teacher | None,
        batches: Batches,
        options: RepairSettings,
        *,
        group: ProcessGroup,
        view: View,
        validation: Batches | None = None,
    ) -> None:
        self.adapters, self.teacher, self.options = adapters, teacher, options
        self.group, self.view, self.validation = group, view, validation
        self.prefetch = Prefetch(batches, group, options)
        self.parameters = list(adapters.parameters().values())
        self.peak = peak_rate(options, adapters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.peak, weight_decay=0.0, fused=True)
        self.scaler, self.stopping = scaler(group.device, options.precision), EarlyStopping(options.patience)
        self.records: list[StepLog] = []
        if options.batch < group.size * options.accumulate:
            raise InputError(
                f"--batch {options.batch} is less than {group.size} processes x {options.accumulate} passes: raise it"
            )

    def train(self, checkpoints: Checkpoints | None, progress: Progress) -> list[StepLog]:
        """Train from the checkpoint, or from the start where there is none; return one entry for each step.

        Only the main process has checkpoints.

        Raises:
            CheckFailed: ten steps in a row, or all, had a loss or a gradient that is not finite; the last good checkpoint
                is kept.
        """
        if (state := self.group.tell(checkpoints.load() if checkpoints else None)) is not None:
            self.restore(state)
        if self.teacher is not None:
            self.teacher.prepare(progress)
        started, before = time.monotonic(), len(self.records)
        saved = started
        folder = self.options.tensorboard if self.group.is_main else None
        teaching = [f"teacher {self.teacher.mode}"] if self.teacher else []
        bars = progress.task("repair", self.options.steps, done=before)
        with closing(self.prefetch), bars as bar, board(folder, before) as curves:
            while not self._finished():
                record = self.step()
                done = len(self.records)
                curves.put(done, record._asdict())
                pace = (done - before) * self.options.batch / (time.monotonic() - started)
                bar.advance([f"loss {record.loss:.3f}", f"kl {record.kl:.3f}", f"{pace:.0f} samples/s", *teaching])
                self._check_skips()
                self._validate()
                if checkpoints and self._is_due(saved):
                    checkpoints.save(self.state())
                    saved = time.monotonic()
        self._check_some_moved()
        self.stopping.restore_best(self.adapters.parameters())
        return self.records

    def step(self) -> StepLog:
        """Do the next step: its passes, then one update of the parameters, unless the loss or gradient is not finite."""
        number = len(self.records)
        rate = learning_rate(number, self.options.steps, self.peak, self.options.warm_up)
        passes = self.prefetch.at(number)
        (tokens,) = self.group.total([sum(len(one.batch.answers_N) for one in passes)])
        self.optimizer.zero_grad()
        means = [self._pass(one.batch, one.indices, len(one.batch.answers_N) / tokens) for one in passes]
        losses = self.group.total([sum(column) for column in zip(*means, strict=True)])
        norm = self._gather_gradients()
        finite = math.isfinite(losses[0]) and math.isfinite(norm)
        if finite:
            self._descend(rate)
        self.scaler.update()
        self.records.append(StepLog._make((rate, *losses, norm, float(not finite))))
        return self.records[-1]

    def state(self) -> State:
        """Return all that the next steps depend on: parameters, AdamW's moments and count, and the steps so far."""
        state: State = {
            "records": torch.tensor(self.records, dtype=torch.float64),
            "scale": scaler_state(self.scaler),
        }
        for name, parameter in self.adapters.parameters().items():
            state[name] = parameter.detach()
            # a layer whose output is never used has no gradient, and AdamW no state for it
            state |= {f"{name}.{key}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        return state | self.stopping.state()

    def restore(self, state: State) -> None:
        """Restore what `state` returned; the trainer must have been built in the same way."""
        self.records = [StepLog(*row) for row in state["records"].tolist()]
        restore_scaler(self.scaler, state["scale"])
        self.stopping.restore(state)
        for name, parameter in self.adapters.parameters().items():
            parameter.data.copy_(state[name])
            moments = {key: state[f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in state}
            if moments:
                self.optimizer.state[parameter] = {key: one.to(parameter.device) for key, one in moments.items()}

    def _pass(self, batch: Batch, indices: Sequence[int], share: float) -> list[float]:
        """Add the gradient of a pass with this share of the step's tokens; return its part of the step's losses."""
        losses = self._losses(batch, indices)
        self.scaler.scale(losses.total * share).backward()  # type: ignore[no-untyped-call]
        return [float(loss.detach()) * share for loss in losses]

    def _losses(self, batch: Batch, indices: Sequence[int]) -> Losses:
        if self.teacher is None:
            return task_loss(self.view.of(self.adapters.model, batch), batch.answers_N)
        target = self.teacher.target(batch, indices)
        return repair_loss(self.view.of(self.adapters.model, batch), target, batch.answers_N, self.options)

    def _gather_gradients(self) -> float:
        """Add up the processes' gradients and clip the sum; return its norm before clipping."""
        self.group.add_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        return float(nn.utils.clip_grad_norm_(self.parameters, self.options.clip))

    def _descend(self, rate: float) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.step()

    def _finished(self) -> bool:
        return len(self.records) >= self.options.steps or self.stopping.over

    def _check_skips(self) -> None:
        last = self.records[-SKIPS:]
        if len(last) == SKIPS and all(record.skipped for record in last):
            raise CheckFailed(
                f"repair stopped at step {len(self.records)}: {SKIPS} steps in a row had a loss or a gradient that is not "
                f"finite (loss {last[-1].loss:.4g}, gradient norm {last[-1].norm:.4g}); "
                "lower --lr, --alpha, --hidden or --temperature"
            )

    def _check_some_moved(self) -> None:
        if all(record.skipped for record in self.records):
            last = self.records[-1]
            raise CheckFailed(
                f"repair trained nothing: all {len(self.records)} steps had a loss or a gradient that is not finite (loss "
                f"{last.loss:.4g}, gradient norm {last.norm:.4g}); lower --lr, --alpha, --hidden or --temperature"
            )

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the task loss on the validation data, if it is due after this step."""
        done = len(self.records)
        every = self.options.validation_interval
        if self.validation is None or (done % every and done != self.options.steps):
            return
        tokens = loss = 0.0
        mine = split(range(len(self.validation.samples)), self.group.size)
        for start in range(0, max(map(len, mine)), self.options.batch):
            places = mine[self.group.rank][start : start + self.options.batch]
            # a process without samples runs too: weights in shards come from all processes
            batch = self.validation.of(places or [0]).to(self.group.device)
            found = float(task_loss(self.view.of(self.adapters.model, batch), batch.answers_N).task)
            if places:
                tokens += len(batch.answers_N)
                loss += found * len(batch.answers_N)
        loss, tokens = self.group.total([loss, tokens])
        self.stopping.note(done, loss / tokens, self.adapters.parameters())

    def _is_due(self, saved: float) -> bool:
        """Whether to write a checkpoint now: not after a skipped step, unless it is the last one."""
        if self._finished():
            return True
        minutes = self.options.checkpoint_minutes
        late = minutes is not None and time.monotonic() - saved >= 60 * minutes
        return not self.records[-1].skipped and (late or len(self.records) % self.options.checkpoint_every == 0)
