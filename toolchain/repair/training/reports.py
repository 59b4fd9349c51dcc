"""Reports on a training run: a row for each step, the curves as a plot, and measures for the history."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from vlmc.toolchain.repair.training.trainer import StepLog, Trainer
from vlmc.toolchain.reporting.paths import CURVES, PLOT

SPANS = 30  # the plot's curves are smoothed over this part of a run's steps


def write_reports(folder: Path, records: Sequence[StepLog], validation: Mapping[int, float]) -> None:
    """Write the steps and the validation losses (by step) as CSV and, where matplotlib is installed, as a plot.

    Equal runs give equal bytes: there are no times in them.
    """
    (folder / CURVES).parent.mkdir(parents=True, exist_ok=True)
    columns = ("step", *StepLog._fields, "validation")
    rows = [
        ",".join([str(step), *(f"{value:.6g}" for value in record), f"{validation[step]:.6g}" if step in validation else ""])
        for step, record in enumerate(records, 1)
    ]
    (folder / CURVES).write_text("\n".join([",".join(columns), *rows]) + "\n", encoding="utf-8")
    if can_draw():
        _plot(folder / PLOT, records, validation)


def measures(trainer: Trainer) -> dict[str, Any]:
    """Return what the history says of a training run."""
    trained = sum(parameter.numel() for parameter in trainer.parameters)
    found = {"parameters": trained, "peak_lr": trainer.peak, **summary(trainer.records, trainer.stopping.losses)}
    return found | (trainer.teacher.measures() if trainer.teacher else {})


def summary(records: Sequence[StepLog], validation: Mapping[int, float]) -> dict[str, Any]:
    """Return the counts of steps and of skipped ones, the mean losses of the first and last tenth, the best validation."""
    good = [record for record in records if not record.skipped]
    window = max(1, len(good) // 10)
    found: dict[str, Any] = {
        f"{when}_{name}": round(fmean(getattr(record, name) for record in some), 6)
        for when, some in (("first", good[:window]), ("last", good[-window:]))
        for name in ("loss", "task", "kl")
        if some
    }
    best = min(validation, key=lambda step: validation[step], default=None)
    told = {} if best is None else {"best_validation": round(validation[best], 6), "best_step": best}
    return {"steps_done": len(records), "skipped": len(records) - len(good), **found, **told}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """Return the running mean at each step, weighted 1, k, k^2 ... backwards, k = 1 - 1 / span, without skipped steps."""
    keep, total, weight, found = 1 - 1 / span, 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight if weight else math.nan)
    return found


def _plot(path: Path, records: Sequence[StepLog], validation: Mapping[int, float]) -> None:
    """Draw the losses, faint with a smoothed curve over them, those of validation, and the learning rate below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    steps, span = range(1, len(records) + 1), max(1, len(records) // SPANS)
    curves = {name: [getattr(record, name) for record in records] for name in ("loss", "task", "kl", "hidden")}
    tops = list(validation.values())
    for name, values in curves.items():
        if any(values) and not (name == "task" and values == curves["loss"]):
            finite, curve = [value if math.isfinite(value) else math.nan for value in values], smoothed(values, span)
            (line,) = losses.plot(steps, curve, label=name, linewidth=1.6)
            losses.plot(steps, finite, color=line.get_color(), alpha=0.25, linewidth=0.7, zorder=1)
            tops += [value for value in curve if math.isfinite(value)]
    if validation:
        losses.plot(list(validation), list(validation.values()), "ko-", label="task, validation", markersize=3, linewidth=1)
    losses.set_ylabel(f"loss, smoothed over {span} steps" if span > 1 else "loss")
    losses.set_ylim(0, 1.1 * max([value for value in tops if math.isfinite(value)], default=1.0) or 1.0)
    losses.legend(frameon=False)
    rates.plot(steps, [record.lr for record in records], color="gray", linewidth=1.2)
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.set_xlabel("step")
    figure.savefig(path, dpi=90, metadata={"Software": None})
