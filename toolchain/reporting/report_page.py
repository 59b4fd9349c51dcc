"""The report's sections, from what an artifact's history and reports hold: HTML without a script, every text escaped."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from vlmc.runtime.artifact import Artifact, Manifest
from vlmc.toolchain.machine.durations import noted
from vlmc.toolchain.reporting.card import pruned_accuracy
from vlmc.toolchain.reporting.page_parts import Curve, bars, cards, folded, heading, paragraph, plot, table
from vlmc.toolchain.reporting.tables import accuracy_rows, asked, megabytes, metric_of, percent

LOSSES = ("loss", "task", "kl", "hidden")
"""Columns of `reports/repair.csv` that are losses."""
_SPANS = 30  # curves are smoothed over this part of a run's steps
_WORST = 8  # layers that are listed by name
_OPTION = 200  # characters of an option's value


def overview(artifact: Artifact, layers: Mapping[str, Any]) -> list[str]:
    """Say what the artifact is, and how many of its pruned weights are zeros."""
    manifest, some = artifact.manifest, layers["layers"].values()
    zeros = sum(one["rows"] * one["columns"] * one["sparsity"] for one in some)
    share = zeros / sum(one["rows"] * one["columns"] for one in some)
    return [
        paragraph(
            f"{manifest.family}, {manifest.state}, made from {manifest.origin.model}. {len(some)} pruned "
            f"layers, {percent(share)} zeros in them. Digest {artifact.digest[:16]}, of the dense model "
            f"{manifest.origin.digest[:16]}."
        )
    ]


def history(artifact: Artifact) -> list[str]:
    """Tell each step: its options, what it measured, and its time where this machine did it."""
    parts, steps = [heading("What was done")], artifact.manifest.history
    made = [*(step.parent for step in steps[1:]), artifact.digest]
    for number, (step, digest) in enumerate(zip(steps, made, strict=True), 1):
        seconds = noted(digest)
        parts.append(heading(f"{number}. {step.stage}" + (f", {_duration(seconds)}" if seconds is not None else ""), 3))
        told = {name: value for name, value in step.measures.items() if not isinstance(value, (dict, list))}
        if told:
            parts.append(table(("measured", "value"), [(name.replace("_", " "), _value(one)) for name, one in told.items()]))
        options = {name: value for name, value in step.config.items() if value is not None}
        if options:
            rows = [(f"--{name.replace('_', '-')}", _value(value)) for name, value in options.items()]
            parts.append(folded(f"{len(rows)} options", table(("option", "value"), rows, words=True)))
    return parts


def quality(manifest: Manifest, found: Mapping[str, Any] | None) -> list[str]:
    """Show the accuracies that eval measured, dense beside compressed, and the pruned model's."""
    before, parts = pruned_accuracy(manifest), [heading("Quality")]
    if found is not None:
        head, *rows = accuracy_rows(found, before)
        parts += [paragraph(f"{metric_of(found)} on {asked(found)}, greedy."), table(head, rows)]
    else:
        parts.append(paragraph("vlmc eval was not run on this artifact: it measures the dense and the compressed model."))
    if before is not None:
        parts.append(
            paragraph(f"Before the repair: {percent(before['overall'])} right on {asked(before)}, as repair measured it.")
        )
    return parts


def curves(text: str) -> list[str]:
    """Draw the losses, the validation and the learning rate of `reports/repair.csv`."""
    rows = list(csv.DictReader(io.StringIO(text)))
    span = max(1, len(rows) // _SPANS)
    columns = {name: [(float(row["step"]), float(row[name])) for row in rows] for name in ("lr", *LOSSES)}
    shown = [name for name in LOSSES if any(value for _, value in columns[name])]
    if columns["task"] == columns["loss"]:
        shown = [name for name in shown if name != "task"]
    lines = [Curve(name, _smooth(columns[name], span)) for name in shown]
    checked = [(float(row["step"]), float(row["validation"])) for row in rows if row["validation"]]
    lines.append(Curve("task, validation", checked, marked=True))
    label = f"loss, each the mean of {span} steps" if span > 1 else "loss"
    return [heading("The repair's curves"), plot(label, lines), plot("learning rate", [Curve("rate", columns["lr"])], 110)]


def layers(found: Mapping[str, Any]) -> list[str]:
    """Draw a bar for each pruned layer: its zeros, and how far its weight moved from the dense one; name the worst."""
    parts = [heading("Layer by layer")]
    for part in dict.fromkeys(one["part"] for one in found["layers"].values()):
        some = {name: one for name, one in found["layers"].items() if one["part"] == part}
        told = [f"{name}: {percent(one['sparsity'])} zeros, {one['pattern']}" for name, one in some.items()]
        parts.append(
            bars(f"{part}: zeros, the whole height is 100 %", [one["sparsity"] for one in some.values()], told, 0.01)
        )
        parts += _changes(part, some)
    if not found["dense"]:
        parts.append(
            paragraph("How far the weights moved is not known: the dense model was not found (vlmc report --dense).")
        )
    return parts


def examples(found: Mapping[str, Any]) -> list[str]:
    """Show questions that dense and compressed model answer differently, with their pictures."""
    some = found["examples"]
    if not some:
        return []
    names = ("kind", "question", "expected", "dense", "compressed")
    shown = cards(([str(one) for one in each["images"]], {name: str(each[name]) for name in names}) for each in some)
    note = f"{found['differing']} of {found['count']} answers differ; {len(some)} of them, first what was right before."
    return [heading("Where dense and compressed differ"), paragraph(note), shown]


def bench(found: Mapping[str, Any]) -> list[str]:
    """Show the times of `vlmc bench`."""
    rows = []
    for name, row in found["rows"].items():
        seconds = row["seconds"]
        times = [f"{1e3 * one['median']:.2f} ({1e3 * one['spread']:.2f})" for one in seconds.values()]
        ratios = [f"{row['of_dense'][phase]['median']:.2f}x" for phase in seconds]
        rows.append((name, *times, *ratios, megabytes(row["bytes"])))
    phases = list(next(iter(found["rows"].values()))["seconds"])
    head = ("", *(f"{phase}, ms" for phase in phases), *(f"{phase}, of dense" for phase in phases), "graphs")
    note = (
        f"{found['engine']} on {found['machine']}, {found['date']}: medians of {found['rounds']} rounds, in brackets from "
        "the least to the greatest; of dense: more than 1 is faster."
    )
    return [heading("Speed"), paragraph(note), table(head, rows)]


def _changes(part: str, some: Mapping[str, Mapping[str, Any]]) -> list[str]:
    moved = {name: float(one["change"]) for name, one in some.items() if one["change"] is not None}
    if not moved:
        return []
    most = max(moved.values()) or 1.0
    told = [f"{name}: {percent(change)}" for name, change in moved.items()]
    label = f"{part}: damage, the distance from the dense weight in shares of its norm; the whole height is {percent(most)}"
    worst = sorted(moved.items(), key=lambda one: -one[1])[:_WORST]
    listed = table(("layer", "damage"), [(name, percent(change)) for name, change in worst])
    return [
        bars(label, [change / most for change in moved.values()], told),
        folded(f"the {len(worst)} most damaged", listed),
    ]


def _smooth(points: Sequence[tuple[float, float]], span: int) -> list[tuple[float, float]]:
    """Return the means of each `span` points that follow each other, skipped steps (NaN) left out."""
    found = []
    for start, end in pairwise([*range(0, len(points), span), len(points)]):
        good = [(x, y) for x, y in points[start:end] if y == y]
        if good:
            found.append((good[-1][0], sum(y for _, y in good) / len(good)))
    return found


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _value(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _OPTION else f"{text[:_OPTION]}..."
