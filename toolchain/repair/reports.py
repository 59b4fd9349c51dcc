"""What repair says of its training: a row for each step, the curves as a picture, and figures for the history."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from vlmc.toolchain.repair.training import Record

TABLE, PLOT = "reports/repair.csv", "reports/repair.png"


def write_reports(folder: Path, records: Sequence[Record], validation: Mapping[int, float]) -> None:
    """Write the records and the validation losses (by step) as CSV and, where matplotlib is there, as a plot.

    Equal runs give equal bytes, for no time is in them.
    """
    (folder / TABLE).parent.mkdir(parents=True, exist_ok=True)
    columns = ("step", *Record._fields, "validation")
    rows = [
        ",".join([str(step), *(f"{value:.6g}" for value in record), f"{validation[step]:.6g}" if step in validation else ""])
        for step, record in enumerate(records, 1)
    ]
    (folder / TABLE).write_text("\n".join([",".join(columns), *rows]) + "\n", encoding="utf-8")
    if can_draw():
        _plot(folder / PLOT, records, validation)


def summary(records: Sequence[Record], validation: Mapping[int, float]) -> dict[str, Any]:
    """Return the number of steps and of skipped ones, the mean losses of the first and last tenth, the best validation."""
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


def _plot(path: Path, records: Sequence[Record], validation: Mapping[int, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.14, 0.89, 0.82))
    steps = range(1, len(records) + 1)
    curves = {name: [getattr(record, name) for record in records] for name in ("loss", "task", "kl", "hidden")}
    for name, values in curves.items():
        if any(values) and not (name == "task" and values == curves["loss"]):
            axes.plot(steps, [value if math.isfinite(value) else math.nan for value in values], label=name, linewidth=1)
    if validation:
        axes.plot(list(validation), list(validation.values()), "o-", label="task, validation", markersize=3, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90, metadata={"Software": None})
