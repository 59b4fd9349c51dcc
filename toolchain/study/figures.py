"""The study's two figures: accuracy over the share of a fixed sum, and over which towers are pruned to a target.

The colours are those of Okabe and Ito, which the colour-blind can tell apart; lines differ in their markers too.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.runtime.artifact import sha256_file
from vlmc.runtime.artifact.texts import partial_of
from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain.machine.packages import remedy
from vlmc.toolchain.study.plan import BOTH, LANGUAGE_ONLY, VISION_ONLY, Study
from vlmc.toolchain.study.record import RECORD, Record, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT, WHERE = "split.png", "where.png"
SIZE, DPI = (7.2, 4.2), 140  # inches; 1008 x 588 pixels
DARK = "#3c3f46"
LINES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"))
TOWERS = {
    BOTH: ("vision + language", "#0072b2"),
    VISION_ONLY: ("vision only", "#e69f00"),
    LANGUAGE_ONLY: ("language only", "#009e73"),
}
WIDTH, DENSE_PLACE = 0.27, 0.35  # of a bar, where groups are 1 apart and the first is at 1


def require() -> None:
    """Raise EnvironmentLacks when there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EnvironmentLacks(f"matplotlib is not installed: {remedy('matplotlib')}")


def draw(record: Record, folder: Path) -> None:
    """Write both figures beside the record; each says from which `sweep.json` it was drawn."""
    origin = f"{RECORD}, SHA-256 {sha256_file(folder / RECORD)}"
    for name, figure in ((SPLIT, split_figure(record)), (WHERE, where_figure(record))):
        partial = partial_of(folder / name)
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Description": origin, "Software": None})
        partial.replace(folder / name)


def split_figure(record: Record) -> "Figure":
    """Return figure 1: a line for each sum over vision's share of it, the dense model dashed."""
    figure, axes = _blank(record, "a sum of sparsity shared between vision and language")
    dense = 100 * _rows(record, "dense")[0].accuracy
    axes.axhline(dense, color=DARK, linewidth=1.2, linestyle="--", label=f"dense ({dense:.1f})")
    rows = _rows(record, "split")
    for number, group in enumerate(_groups(rows)):
        (colour, marker), style = LINES[number % len(LINES)], "-:"[number // len(LINES) % 2]
        points = sorted((_share(row), 100 * row.accuracy) for row in rows if row.group == group)
        (line,) = axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=style, clip_on=False)
        line.set_label(f"sum {group}")
    ticks = {_share(row): row.name for row in rows}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("vision : language (% of the sum)")
    _legend(figure, axes)
    return figure


def where_figure(record: Record) -> "Figure":
    """Return figure 2: for each target a bar for both towers, vision only and language only, beside the dense model's."""
    figure, axes = _blank(record, "both towers pruned, or one of them")
    rows = _rows(record, "where")
    groups = _groups(rows)
    _bars(axes, [DENSE_PLACE], _rows(record, "dense"), DARK, None)
    for number, (name, (legend, colour)) in enumerate(TOWERS.items()):
        places = [place + (number - 1) * WIDTH for place in range(1, len(groups) + 1)]
        _bars(axes, places, [row for row in rows if row.name == name], colour, legend)
    axes.set_xticks([DENSE_PLACE, *range(1, len(groups) + 1)], ["dense", *groups])
    axes.set_xlabel("sparsity of what is pruned")
    _legend(figure, axes)
    return figure


def _blank(record: Record, title: str) -> "tuple[Figure, Axes]":
    """Return a figure whose y axis is accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{Path(record.model).name}, {record.settings['method']}: {title}", fontsize=11)
    axes.set_ylabel(f"right answers to {record.questions:,} questions (%)")
    axes.set_ylim(0, 105)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _bars(axes: "Axes", places: Sequence[float], rows: Sequence[Row], colour: str, legend: str | None) -> None:
    bars = axes.bar(places, [100 * row.accuracy for row in rows], WIDTH * 0.94, color=colour, label=legend)
    axes.bar_label(bars, fmt="%.1f", fontsize=9, padding=2)


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)


def _rows(record: Record, study: Study) -> list[Row]:
    return [row for row in record.rows if row.study == study]


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


def _share(row: Row) -> float:
    """Return vision's share in percent."""
    return float(row.name.partition(":")[0])
