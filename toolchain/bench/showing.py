"""A bench as a table, as JSON and as a plot."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.runtime.artifact.texts import partial_of, write_text
from vlmc.runtime.errors import InputError
from vlmc.toolchain.bench.latency import said
from vlmc.toolchain.bench.timing import PHASES
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.reporting.paths import BENCH
from vlmc.toolchain.reporting.report import refresh
from vlmc.toolchain.reporting.tables import megabytes, show_table
from vlmc.toolchain.study.figures import DARK, DPI, LINES, require

RECORD, PICTURE = "bench.json", "bench.png"
HATCHES = ("", "///", "...")
"""What tells bars of one colour apart, where there are more than colours."""


def check(folder: Path) -> None:
    """Check, before hours of work, that both files can be written into the folder; nothing is written yet.

    Raises:
        InputError: there is something else in a place, or the user may not write there.
    """
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            break
        if place.exists() or place.is_symlink():
            raise InputError(f"{place} is not a folder: name another one with --out")
    if not os.access(place, os.W_OK):
        raise InputError(f"{place} cannot be written to: name another folder with --out")
    for path in (folder / RECORD, folder / PICTURE):
        if path.is_dir():
            raise InputError(f"{path} is a folder: name another folder with --out")


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write both files into the folder, which is made if it is not there.

    Raises:
        EnvironmentLacks: matplotlib is not installed.
    """
    require()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(found, indent=2) + "\n")
    _draw(found, folder / PICTURE)


def record(artifact: Artifact, found: Mapping[str, Any], progress: Progress) -> None:
    """Write a bench into the artifact, without paths, and into its report.

    Raises:
        InputError: the artifact has become another model meanwhile, or a file would not lie in it.
    """
    told = {name: value for name, value in found.items() if name != "artifact"}
    put_texts(artifact, {BENCH: json.dumps(told, indent=2) + "\n"})
    refresh(artifact, progress)


def show(found: Mapping[str, Any], folder: Path) -> None:
    """Print a row for each contestant: milliseconds and their spread, tokens a second, how many times as fast as dense."""
    rows = [_row(name, row, found["predicted"].get(name)) for name, row in found["rows"].items()]
    header = (f"{found['engine']}, {found['new_tokens']} tokens, {found['rounds']} rounds", *PHASES)
    speed = ("tokens/s", "decode of dense", "predicted", "end to end of dense")
    show_table((*header, *speed, "graphs", "peak memory", "mapped of it"), rows)
    print(
        "milliseconds, in brackets from the least to the greatest; of dense: more than 1 is faster; mapped: from the graphs"
    )
    if found["why_not_predicted"]:
        print(found["why_not_predicted"])
    print(said(found["no_lora_latency"]))
    print(f"written: {folder / RECORD}, {folder / PICTURE}")


def _row(name: str, row: Mapping[str, Any], foretold: Mapping[str, float] | None) -> tuple[str, ...]:
    times = (f"{1e3 * one['median']:.2f} ({1e3 * one['spread']:.2f})" for one in (row["seconds"][phase] for phase in PHASES))
    ratios = [f"{row['of_dense'][phase]['median']:.2f}x" for phase in ("decode", "end to end")]
    held = row["memory"]
    memory = ("-", "-") if held is None else (megabytes(held["peak"]), megabytes(held["mapped"]))
    predicted = "-" if foretold is None else f"{foretold['gain']:.2f}x"
    speed = (f"{1 / row['seconds']['decode']['median']:.1f}", ratios[0], predicted, ratios[1])
    return (name, *times, *speed, megabytes(row["bytes"]), *memory)


def _draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw how many times as fast as the dense twin everyone is, phase by phase, with the spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(found["rows"])
    for number, (name, row) in enumerate(found["rows"].items()):
        places = [phase + (number - (len(found["rows"]) - 1) / 2) * width for phase in range(len(PHASES))]
        ratios = [row["of_dense"][phase] for phase in PHASES]
        heights, spreads = [one["median"] for one in ratios], [one["spread"] / 2 for one in ratios]
        colour, hatch = LINES[number % len(LINES)][0], HATCHES[number // len(LINES) % len(HATCHES)]
        bars = axes.bar(places, heights, width * 0.92, yerr=spreads, color=colour, ecolor=DARK, label=name)
        for bar in bars:
            bar.set(hatch=hatch, edgecolor="white", linewidth=0)
    axes.axhline(1, color=DARK, linewidth=1, linestyle="--")
    axes.set_xticks(range(len(PHASES)), PHASES)
    axes.set_ylabel("times as fast as the dense twin")
    axes.set_title(f"{found['engine']} on {found['machine']}, {found['date']}", fontsize=10)
    axes.legend(fontsize=8, ncols=3, loc="upper left", frameon=False)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    partial = partial_of(path)
    partial.unlink(missing_ok=True)  # it may be a link
    figure.savefig(partial, format="png", dpi=DPI)
    partial.replace(path)
