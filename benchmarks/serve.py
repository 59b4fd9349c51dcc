"""Many clients on one model: a batcher beside one question at a time, and beside threads that share the model.

Each client asks the next question as soon as it has an answer; every question is about an image of its own, and no features
of images are kept. One at a time, questions are answered in the order in which they came. Contestants take turns; a value is
the median of the rounds, a ratio the median of each round's ratio, its spread from the least to the greatest. TTFT is the
time to the first text of an answer, waiting and reading the image included.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pages import DOCS, fill
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, prepare, report, targets
from serving.clients import Ask, Load, batched, directly, in_turn, load
from serving.models import DEMO, LONG, SMOL, exported, opened

from vlmc.runtime import Batcher, Message, Options
from vlmc.toolchain import data

NAME, PAGE = "serve", DOCS / "runtime.md"
ONE, THREADS, BATCHER = "one at a time", "threads", "batcher"
THROUGHPUT, P50, P95 = "throughput", "TTFT, p50", "TTFT, p95"
CONTESTANTS = (ONE, THREADS, BATCHER)
MODELS = (DEMO, LONG, SMOL)
CLIENTS = (1, 4, 16, 64)


@dataclass(frozen=True)
class Work:
    """By model: rounds, the longest answer, and how many questions at least, and for each client, are asked."""

    rounds: Mapping[str, int]
    tokens: Mapping[str, int]
    least: Mapping[str, int]
    each: Mapping[str, int]
    blocks: int = 30


FULL = Work(
    {DEMO: 5, LONG: 5, SMOL: 3},
    {DEMO: 32, LONG: 32, SMOL: 12},
    {DEMO: 32, LONG: 16, SMOL: 4},
    {DEMO: 8, LONG: 4, SMOL: 1},
)
QUICK = Work(
    {DEMO: 1, LONG: 1, SMOL: 1},
    {DEMO: 32, LONG: 32, SMOL: 4},
    {DEMO: 8, LONG: 4, SMOL: 2},
    {DEMO: 1, LONG: 1, SMOL: 1},
    2,
)
Loads = dict[tuple[str, int, str], list[Load]]
"""What was seen, by model, number of clients and contestant, round by round."""


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which models")
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS, help="how many clients at once")
    parser.add_argument("--table", action="store_true", help="measure nothing: fill docs/runtime.md from the results")
    parser.add_argument("--keep", type=Path, help="a folder for the exported models, to use them again")
    chosen = parser.parse_args(given)
    prepare(chosen)
    if not chosen.table:
        with tempfile.TemporaryDirectory() as scratch:
            finish(run(chosen, chosen.keep or Path(scratch), command(NAME, given)), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def run(chosen: argparse.Namespace, folder: Path, line: str) -> Report:
    """Measure every model with every number of clients."""
    work, models, clients = QUICK if chosen.quick else FULL, chosen.models, chosen.clients
    loads: Loads = {}
    for name in models:
        artifact = exported(name, folder, work.blocks)
        with ExitStack() as stack:
            model = stack.enter_context(opened(name, artifact, chosen.threads or 0))
            options = Options(max_new_tokens=work.tokens[name])
            batcher = stack.enter_context(Batcher(model, max_queue=max(clients)))
            alone = directly(model, options)
            asks = {ONE: in_turn(alone), THREADS: alone, BATCHER: batched(batcher, options)}
            _measure(name, work, clients, asks, loads)
    rows = [row for name in models for count in clients for row in _rows(name, count, loads)]
    settings = {"rounds": dict(work.rounds), "tokens": dict(work.tokens), "clients": list(clients), "blocks": work.blocks}
    return report(line, rows, _bars(models, clients, loads), settings)


def _measure(name: str, work: Work, clients: Sequence[int], asks: Mapping[str, Ask], loads: Loads) -> None:
    most = max(work.least[name], max(clients) * work.each[name])
    samples = data.load("demo", "test", most)
    questions = [Message("user", [sample.load_image(), sample.question]) for sample in samples]
    for ask in asks.values():
        load(ask, questions[:4], 2)
    for round_ in range(work.rounds[name]):
        for count in clients:
            asked = questions[: max(work.least[name], count * work.each[name])]
            for contestant, ask in asks.items():
                loads.setdefault((name, count, contestant), []).append(load(ask, asked, count))
            print(f"{name}, round {round_ + 1}, {_counted(count)}", file=sys.stderr)


def _rows(name: str, count: int, loads: Loads) -> list[Row]:
    found = []
    for contestant in CONTESTANTS:
        for metric, unit in ((THROUGHPUT, "tokens/s"), (P50, "ms"), (P95, "ms")):
            values = [_value(one, metric) for one in loads[name, count, contestant]]
            ratios = _ratios(name, count, contestant, metric, loads)
            label = f"{name}, {_counted(count)}: "
            base = None if contestant == ONE else label + ONE
            ratio, spread = round(median(ratios), 3), round(max(ratios) - min(ratios), 3)
            shown = (None, None) if base is None else (ratio, spread)
            found.append(Row(label + contestant, base, metric, round(median(values), 2), unit, *shown))
    return found


def _ratios(name: str, count: int, contestant: str, metric: str, loads: Loads) -> list[float]:
    """Return the contestant's value over that of one at a time, round by round."""
    pairs = zip(loads[name, count, contestant], loads[name, count, ONE], strict=True)
    return [_value(own, metric) / _value(base, metric) for own, base in pairs]


def _value(seen: Load, metric: str) -> float:
    if metric == THROUGHPUT:
        return seen.throughput
    return seen.first_text(50 if metric == P50 else 95)


def _bars(models: Sequence[str], clients: Sequence[int], loads: Loads) -> list[Bar]:
    bars = []
    for name in models:
        same = [
            own.tokens == base.tokens
            for count in clients
            for own, base in zip(loads[name, count, BATCHER], loads[name, count, ONE], strict=True)
        ]
        bars.append(at_least(f"{name}: answers token for token those of one at a time", 1, sum(same) / len(same), "of all"))
    for name in (model for model in models if model != SMOL):
        for count, goal in ((16, 3.0), (1, 1.0)):
            if count in clients:
                value = median(_ratios(name, count, BATCHER, THROUGHPUT, loads))
                bars.append(at_least(f"{name}, {_counted(count)}: throughput over one at a time", goal, value, "x"))
        if 16 in clients:
            value = median(_ratios(name, 16, BATCHER, P95, loads))
            bar = f"{name}, 16 clients: p95 TTFT over one at a time"
            bars.append(Bar(bar, "at most 0.5 x", round(value, 3), value <= 0.5))
    return bars


def table(found: Report) -> str:
    """Return the results in Markdown: every model and number of clients, throughput and TTFT of each contestant."""
    lines = ["| | " + " | ".join(f"{one}: tokens/s, TTFT p50 / p95" for one in CONTESTANTS) + " | tokens/s, ratio |"]
    lines.append("|---|" + "---:|" * (len(CONTESTANTS) + 1))
    labels = dict.fromkeys(row.name.rpartition(": ")[0] for row in found.rows)
    for label in labels:
        ratio = found.find(f"{label}: {BATCHER}", THROUGHPUT)
        cells = [_cell(found, f"{label}: {one}") for one in CONTESTANTS]
        shown = "" if ratio is None or ratio.ratio is None else f"{ratio.ratio:.2f} ({ratio.spread:.2f})"
        lines.append(f"| {label} | {' | '.join(cells)} | {shown} |")
    what = "TTFT in milliseconds; the ratio is the batcher's over one at a time, in brackets its spread over"
    where = f"Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n".join([*lines, "", targets(found), "", f"{what} the rounds. {where}"])


def _cell(found: Report, name: str) -> str:
    throughput, p50, p95 = (found.value(name, metric) or 0 for metric in (THROUGHPUT, P50, P95))
    return f"{throughput:,.0f}, {p50:,.0f} / {p95:,.0f}"


def _counted(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


if __name__ == "__main__":
    main(sys.argv[1:])
