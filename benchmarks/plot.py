"""The picture of quality.json: for each model a group of bars a pruner; which file it was drawn from stands in the PNG."""

import hashlib
from pathlib import Path
from typing import Any

from labels import ACCURACY, DENSE, REMASKED, RESSA, STARTS
from PIL import Image
from report import Report, tenths

SERIES = {"": ("no repair", "#d95f43"), f" + {REMASKED}": (REMASKED, "#7d8396"), f" + {RESSA}": (RESSA, "#2f6db5")}
"""The bars of a pruner by what their rows' names end in: legend and colour."""
DENSE_COLOUR, WIDTH = "#3c3f46", 0.27


def is_current(picture: Path, source: Path) -> bool:
    """Whether the picture was drawn from what the results file holds now."""
    if not picture.is_file():
        return False
    with Image.open(picture) as opened:
        return opened.info.get("Description") == origin(source)


def draw(found: Report, source: Path, picture: Path) -> None:
    """Draw one panel for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    models = found.settings["models"]
    figure = Figure(figsize=(6.0 * len(models), 4.0), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), sharey=True, squeeze=False)[0], models, strict=True):
        _panel(axes, found, model)
    figure.axes[0].set_ylabel(f"right answers to {found.settings['questions']:,} test questions (%)")
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=160, metadata={"Description": origin(source), "Software": None})


def _panel(axes: Any, found: Report, model: str) -> None:
    dense = found.value(f"{model}: {DENSE}", ACCURACY)
    assert dense is not None
    axes.axhline(dense, color=DENSE_COLOUR, linewidth=0.8, linestyle="--", zorder=0)
    _bar(axes, 0, dense, DENSE_COLOUR, DENSE)
    for place, label in enumerate(STARTS, 1):
        values = {end: found.value(f"{model}: {label}{end}", ACCURACY) for end in SERIES}
        shown = [(value, *SERIES[end]) for end, value in values.items() if value is not None]
        for number, (value, legend, colour) in enumerate(shown):
            _bar(axes, place + (number - (len(shown) - 1) / 2) * WIDTH, value, colour, legend)
    axes.set_title(f"{model}: vision and language at 2:4, or as said", fontsize=10)
    axes.set_xticks(range(len(STARTS) + 1), [DENSE, *(label.replace(", ", ",\n") for label in STARTS)], fontsize=8)
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)


def _bar(axes: Any, place: float, value: float, colour: str, legend: str) -> None:
    axes.bar(place, value, WIDTH * 0.94, color=colour, label=legend)
    inside = {"xytext": (0, -3), "textcoords": "offset points", "va": "top", "color": "white"}
    axes.annotate(tenths(value), (place, value), ha="center", fontsize=7.5, **inside)


def origin(source: Path) -> str:
    """Return the words in a picture's description that name the results it was drawn from."""
    return f"{source.name}, SHA-256 {hashlib.sha256(source.read_bytes()).hexdigest()}"
