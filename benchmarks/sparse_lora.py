"""A training step by four methods: plain LoRA, RESSA by autograd through the masked weight, LoRS's gradient, ours.

A step is forward and backward in float32 on the CPU, with and without activation checkpointing, of single layers and of a
whole LLaVA with random weights. A full run also brings the table in docs/repair.md up to date; --table does that from the
results that are there. What peak memory counts is said in lora_steps/measuring.py.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from lora_steps.contestants import LORA, OURS, contestants
from lora_steps.layer import SHAPES, Layer
from lora_steps.measuring import Seen, cosine, observe, seconds
from lora_steps.subject import Pairs, Subject
from lora_steps.table import table
from lora_steps.vlm import NAME as VLM_NAME
from lora_steps.vlm import VLM, Size
from lora_steps.words import CHECKPOINTED, COSINES, KEPT, PEAK, STEP
from pages import DOCS, fill, with_table
from report import RESULTS, Bar, Report, Row, arguments, command, finish, measured, prepare, report

from vlmc.toolchain.repair.kernels.tiled import NARROWEST, TILE

NAME, PAGE = "sparse_lora", DOCS / "repair.md"
SUBJECTS = (*SHAPES, VLM_NAME)


@dataclass(frozen=True)
class Work:
    """How much is done: tokens in a layer's input, rank of the adapters, repeats of each step, size of the VLM."""

    tokens: int
    rank: int
    repeats: int
    size: Size


FULL = Work(2048, 16, 3, Size(3, 512, 32, 224, 1024, 2816, 6, 512, 2048, 6))
QUICK = Work(64, 16, 1, Size(2, 48, 8, 56, 256, 512, 2, 128, 256, 2))


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="which layers, or the VLM")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        _measure(chosen, command(NAME, given))
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def _measure(chosen: argparse.Namespace, line: str) -> None:
    prepare(chosen)
    finish(run(chosen.only, QUICK if chosen.quick else FULL, line), NAME, chosen)


def run(names: Sequence[str], work: Work, line: str) -> Report:
    """Measure every layer, and the VLM."""
    rows = []
    for name in names:
        rows += rows_of(VLM(work.size) if name == VLM_NAME else Layer(name, work.tokens), work)
        print(f"{name}: done", file=sys.stderr, flush=True)
    done = {"tokens": work.tokens, "rank": work.rank, "repeats": work.repeats, VLM_NAME: str(work.size)}
    settings = {"only": list(names), **done, "tile": TILE, "narrowest": NARROWEST, "dtype": "float32", "device": "cpu"}
    return report(line, rows, bars_of(rows), settings)


def rows_of(subject: Subject, work: Work) -> list[Row]:
    """Return one subject's rows: times, memory, cosines to the true gradient."""
    pairs = subject.draw(work.rank)
    found, rows = contestants(subject, pairs), []
    for metric in (STEP, CHECKPOINTED):
        times = seconds(found, subject, work.repeats, checkpointed=metric == CHECKPOINTED)
        rows += _timed(subject.name, metric, times)
    seen = {method: observe(one, subject) for method, one in found.items()}
    rows += _sized(subject.name, PEAK, {method: one.peak for method, one in seen.items()})
    rows += _sized(subject.name, KEPT, {method: one.kept for method, one in seen.items()})
    return rows + _compared(subject.name, seen, subject.truth(pairs))


def _timed(name: str, metric: str, times: Mapping[str, list[float]]) -> list[Row]:
    """Return rows of medians; the ratio is the median of the ratios within a round."""
    rows = []
    for method, taken in times.items():
        row = measured(f"{name}: {method}", metric, [1e3 * median(taken)], "ms")
        row = replace(row, spread=round(1e3 * (max(taken) - min(taken)), 3))
        if method != LORA:
            ratio = median(one / other for one, other in zip(taken, times[LORA], strict=True))
            row = replace(row, baseline=f"{name}: {LORA}", ratio=round(ratio, 4))
        rows.append(row)
    return rows


def _sized(name: str, metric: str, sizes: Mapping[str, int]) -> list[Row]:
    base = measured(f"{name}: {LORA}", metric, [sizes[LORA] / 2**20], "MiB")
    others = [method for method in sizes if method != LORA]
    return [base, *(measured(f"{name}: {it}", metric, [sizes[it] / 2**20], "MiB", base) for it in others)]


def _compared(name: str, seen: Mapping[str, Seen], truth: Pairs) -> list[Row]:
    return [
        Row(f"{name}: {method}", None, metric, round(cosine(one.gradients, truth, parts), 6), "", None, None)
        for metric, parts in COSINES.items()
        for method, one in seen.items()
    ]


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Return what the issue asks, for the layer that is furthest from it and for the VLM."""
    ours = [row for row in rows if row.name.endswith(OURS)]
    whole = [row for row in ours if row.name.startswith(VLM_NAME)]
    layers = [row for row in ours if row not in whole]
    return [*(_bars("worst layer", layers) if layers else []), *(_bars(VLM_NAME, whole) if whole else [])]


def _bars(where: str, ours: Sequence[Row]) -> list[Bar]:
    def at_most(metric: str, goal: float) -> Bar:
        worst = max(row.ratio or 0.0 for row in ours if row.metric == metric)
        return Bar(f"{metric}, ours to plain LoRA's, {where}", f"at most {goal:g} times", worst, worst <= goal)

    least = min(row.value or 0.0 for row in ours if row.metric in COSINES)
    return [
        at_most(PEAK, 1.05),
        at_most(STEP, 1.5),
        at_most(CHECKPOINTED, 1.35),
        Bar(f"cosine to the true gradient, ours, {where}", "above 0.9999", least, least > 0.9999),
    ]


def filled(text: str, found: Report) -> str:
    """Return the page with its table made anew."""
    return with_table(text, NAME, table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
