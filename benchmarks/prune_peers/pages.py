"""The table in docs/pruning.md and the picture beside it, both from prune.json."""

from pathlib import Path
from typing import Any

from pages import with_table
from plot import origin
from report import Report, targets, tenths

from prune_peers.words import (
    ABOVE,
    ACCURACY,
    ADMM,
    ADMM_REFIT,
    AGREEMENT_FLOAT,
    DEMO,
    DENSE,
    ERROR,
    SPARSEGPT,
    SPARSEGPT_BRAIN,
    SPARSEGPT_FLOAT,
    TEXTBOOK_SPARSEGPT,
    TEXTBOOK_WANDA,
    THEIR_SPARSEGPT,
    THEIR_SPARSEGPT_STORED,
    THEIR_WANDA,
    THEIR_WANDA_STORED,
    TIME,
    WANDA,
    WANDA_BRAIN,
    WANDA_FLOAT,
    WIDE,
)

LINES = [
    *(WANDA, WANDA_FLOAT, THEIR_WANDA, THEIR_WANDA_STORED, TEXTBOOK_WANDA),
    *(SPARSEGPT, SPARSEGPT_FLOAT, THEIR_SPARSEGPT, THEIR_SPARSEGPT_STORED, TEXTBOOK_SPARSEGPT, ADMM, ADMM_REFIT),
]
COLOURS = {"vlmc": "#2f6db5", "llm-compressor": "#d95f43", "textbook": "#7d8396"}
PANELS = [
    ("time to prune (s)", WIDE, TIME, 1),
    ("peak memory (MiB)", WIDE, ABOVE, 0),
    ("output error, median layer", DEMO, ERROR, 3),
    ("right answers (%)", DEMO, ACCURACY, 1),
]


def filled(text: str, found: Report) -> str:
    """Return the page with its table made anew."""
    return with_table(text, "prune", table(found))


def table(found: Report) -> str:
    """Return contestants down and measures across, the picture, the bars, and where the figures come from."""
    head = "| | time | peak memory | error, `demo` | error, wide | right answers, `demo` |\n|---|---:|---:|---:|---:|---:|"
    lines = "\n".join(_line(found, name) for name in entered(found))
    dense = f"Dense, `{DEMO}` answers {_cell(found, DEMO, DENSE, ACCURACY, 1)} % right."
    picture = "![time, memory, layer error and accuracy as bars](prune.png)"
    where = f"Measured on {found.machine}, {found.date}: `{found.command}`."
    narrow = [] if found.value(f"{DEMO}: {WANDA_BRAIN}", AGREEMENT_FLOAT) is None else [_narrow(found)]
    return "\n\n".join([f"{head}\n{lines}", dense, *narrow, picture, targets(found), where])


def entered(found: Report) -> list[str]:
    """Return the contestants that took part, or would have if they could be installed, from top to bottom."""
    names = {row.name for row in found.rows}
    return [line for line in LINES if any(f"{name} (".startswith(f"{WIDE}: {line} (") for name in names)]


def _narrow(found: Report) -> str:
    """Return how masks from passes in bfloat16 differ from those in float32."""
    pairs = [(DEMO, WANDA_BRAIN, WANDA), (DEMO, SPARSEGPT_BRAIN, SPARSEGPT), (WIDE, WANDA, WANDA_FLOAT)]
    pairs.append((WIDE, SPARSEGPT, SPARSEGPT_FLOAT))
    lines = ["| | masks that agree | error | in float32 | right answers | in float32 |", "|---|---:|---:|---:|---:|---:|"]
    for model, name, other in pairs:
        cells = [_cell(found, model, name, AGREEMENT_FLOAT, 2)]
        cells += [_cell(found, model, one, ERROR, 3) for one in (name, other)]
        cells += [_cell(found, model, one, ACCURACY, 1) for one in (name, other)]
        units = (" %", "", "", " %", " %")
        shown = (f"{cell}{unit}" if cell else "" for cell, unit in zip(cells, units, strict=True))
        lines.append(f"| `{model}`, {name.removesuffix(', bfloat16')} | {' | '.join(shown)} |")
    chosen = found.settings.get("precision", {}).get(WIDE)
    head = f"Passes in bfloat16 beside passes in float32; on the wide model vlmc chose {chosen} here."
    return "\n".join([head, "", *lines])


def _line(found: Report, name: str) -> str:
    places = [(WIDE, TIME, 1), (WIDE, ABOVE, 0), (DEMO, ERROR, 3), (WIDE, ERROR, 3), (DEMO, ACCURACY, 1)]
    units = ["s", "MiB", "", "", "%"]
    cells = [_cell(found, model, name, metric, digits) for model, metric, digits in places]
    shown = [f"{cell} {unit}".strip() if cell else "" for cell, unit in zip(cells, units, strict=True)]
    return f"| {name} | {' | '.join(shown)} |"


def _cell(found: Report, model: str, name: str, metric: str, digits: int) -> str:
    value = found.value(f"{model}: {name}", metric)
    if value is None:
        return ""
    return tenths(value) if digits == 1 else f"{value:.{digits}f}"


def draw(found: Report, source: Path, picture: Path) -> None:
    """Draw a panel of bars for each measure, contestants from top to bottom."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        _panel(axes, found, *panel)
    figure.savefig(picture, dpi=160, metadata={"Description": origin(source), "Software": None})


def _panel(axes: Any, found: Report, title: str, model: str, metric: str, digits: int) -> None:
    names = entered(found)
    for place, name in enumerate(names):
        value = found.value(f"{model}: {name}", metric)
        if value is None:
            continue
        axes.barh(place, value, 0.72, color=COLOURS[name.partition(" ")[0]])
        axes.annotate(f"{value:.{digits}f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_title(f"{title}, {model}", fontsize=10)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
