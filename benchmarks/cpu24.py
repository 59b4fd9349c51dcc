"""Products with packed 2:4 weights on the CPU, beside dense ones by ONNX Runtime, torch, OpenVINO and the same kernel.

Every product is timed with as many weights, one after the other, as leave the cache before they are needed again; a time is
that of one of them. Times are taken in turns; a ratio is the median of a round's baseline over the contestant, more than 1
is faster, and its spread is from the least to the greatest round. Memory is read in the same rounds; the share of its speed
counts the bytes of the weights alone. With --threads 1 times are the processor's, else the wall clock's.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from cpu24_table import fill_page
from products.contestants import DENSE, ORT, OURS, PACKED, Contestant, contestants, missing
from products.measuring import Reading, clock, seconds
from products.subject import COLD, Subject
from report import Bar, Report, Row, arguments, at_least, command, finish, prepare, report, three_digits

from vlmc.runtime.kernels.native import instruction_sets
from vlmc.runtime.kernels.speed import Speeds
from vlmc.toolchain.machine.speeds import machine_speeds

NAME = "cpu24"
READING = "memory, read"
MANY = 16
"""Rows from which computing takes longer than reading: fewer weights do."""
TIME, SPEED, SHARE = "time of a product", "speed-up", "share of the memory's speed"
PREDICTED = "predicted speed-up"


@dataclass(frozen=True)
class Work:
    """Which products (inputs, outputs), rows of x, rounds, and bytes that are cold."""

    sizes: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    rounds: int
    cold: int


SIZES = ((576, 576), (576, 1536), (1536, 576), (896, 4864), (2048, 2048), (4096, 4096), (4096, 11008), (11008, 4096))
ROWS = (1, 2, 4, 8, 16, 64, 256, 512)
FULL = Work(SIZES, ROWS, 9, COLD)
QUICK = Work(((576, 1536), (2048, 2048)), ROWS, 3, 16 << 20)
Times = Mapping[tuple[Subject, int], Mapping[str, list[float]]]


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", metavar="INxOUT", help="which products, such as 4096x11008")
    parser.add_argument("--rows", nargs="+", type=int, help="how many rows of x")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    chosen = parser.parse_args(given)
    prepare(chosen)
    threads = chosen.threads or os.cpu_count() or 1
    finish(run(_work(chosen), threads, command(NAME, given)), NAME, chosen)
    if not chosen.quick and chosen.out is None:
        fill_page()


def _work(chosen: argparse.Namespace) -> Work:
    planned = QUICK if chosen.quick else FULL
    sizes = [(int(inputs), int(outputs)) for inputs, outputs in (size.split("x") for size in chosen.only or [])]
    return Work(
        tuple(sizes) or planned.sizes, tuple(chosen.rows or planned.rows), chosen.rounds or planned.rounds, planned.cold
    )


def run(work: Work, threads: int, line: str) -> Report:
    """Measure every product at every number of rows."""
    reading, rows, times = Reading(threads, max(work.cold, 16 << 20) * 2), [], {}
    for (inputs, outputs), many in product(work.sizes, (False, True)):
        subject = Subject.of(inputs, outputs, work.cold // (MANY if many else 1))
        found = contestants(subject, threads)
        for count in (count for count in work.rows if (count >= MANY) == many):
            calls = _calls(subject, found, count) | {READING: reading}
            times[subject, count] = seconds(calls, work.rounds, clock(threads))
            rows += _rows(subject, count, times[subject, count], found, reading.nbytes)
            print(f"{subject.name}, {count} rows", file=sys.stderr)
    rows += [Row(f"{name}: {why}", None, TIME, None, "ms", None, None) for name, why in missing().items()]
    predicted = machine_speeds(threads, clock(threads))
    rows += _predicted_rows(times, predicted)
    settings = {"sizes": work.sizes, "rows": work.rows, "rounds": work.rounds, "threads": threads}
    settings["instruction_set"] = instruction_sets()[0]
    return report(line, rows, [*_bars(times), *_prediction_bar(times, predicted)], settings)


def _calls(subject: Subject, found: Mapping[str, Contestant], rows: int) -> dict[str, Callable[[], object]]:
    x_RI = subject.x(rows)
    return {name: one.prepared(x_RI) for name, one in found.items()}


def _rows(
    subject: Subject, count: int, times: Mapping[str, list[float]], found: Mapping[str, Contestant], read: int
) -> list[Row]:
    """Return time, and speed-up over ONNX Runtime, of every contestant; where weights are read once, the share of memory."""
    rows, sizes = [], f"{subject.name}, {count} {'row' if count == 1 else 'rows'}"
    for name, contestant in found.items():
        taken = [1e3 * time / subject.copies for time in times[name]]
        gains = _gains(times, ORT, name)
        title = f"{sizes}: {name}"
        rows.append(Row(title, None, TIME, three_digits(median(taken)), "ms", None, three_digits(max(taken) - min(taken))))
        if name != ORT:
            rows.append(
                Row(title, ORT, SPEED, three_digits(median(gains)), "x", None, three_digits(max(gains) - min(gains)))
            )
        if count == 1:
            shares = [contestant.nbytes / t / (read / r) for t, r in zip(times[name], times[READING], strict=True)]
            rows.append(
                Row(title, READING, SHARE, three_digits(median(shares)), "", None, three_digits(max(shares) - min(shares)))
            )
    speed = [read / time / 1e9 for time in times[READING]]
    rows.append(Row(f"{sizes}: {READING}", None, "speed", three_digits(median(speed)), "GB/s", None, None))
    return rows


def _predicted_rows(times: Times, predicted: Speeds) -> list[Row]:
    """Return what `vlmc doctor` would predict for one row, with the measured speed-up as a ratio to it."""
    rows = []
    for subject, name, gain, measured in _predictions(times, predicted):
        title = f"{subject.name}, 1 row: {name}"
        rows.append(Row(title, ORT, PREDICTED, three_digits(gain), "x", round(measured / gain, 3), None))
    return rows


def _prediction_bar(times: Times, predicted: Speeds) -> list[Bar]:
    off = [abs(measured / gain - 1) for _, name, gain, measured in _predictions(times, predicted) if name == PACKED]
    return [Bar(f"1 row, {PACKED}: prediction", "off by at most 0.2", round(max(off), 3), max(off) <= 0.2)] if off else []


def _predictions(times: Times, predicted: Speeds) -> list[tuple[Subject, str, float, float]]:
    """Return subject, contestant, predicted and measured speed-up, where weights come from memory."""
    return [
        (subject, name, predicted.gain(kind), median(_gains(taken, ORT, name)))
        for (subject, count), taken in times.items()
        for name, kind in OURS.items()
        if count == 1 and subject.is_cold
    ]


def _gains(times: Mapping[str, list[float]], baseline: str, name: str) -> list[float]:
    return [other / own for other, own in zip(times[baseline], times[name], strict=True)]


def _bars(times: Times) -> list[Bar]:
    """Return the issue's bars, each at the product and rows where it is worst."""

    def worst(baseline: str, names: Sequence[str], rows: range, cold: bool) -> float | None:
        gains = [
            median(_gains(taken, baseline, name))
            for (subject, count), taken in times.items()
            for name in names
            if count in rows and (subject.is_cold or not cold)
        ]
        return min(gains, default=None)

    wanted = (
        (f"1 row, {PACKED} over {DENSE}, where the cache is too small", 1.5, worst(DENSE, [PACKED], range(1, 2), True)),
        (f"1 row, {PACKED} over {ORT}, where the cache is too small", 2.5, worst(ORT, [PACKED], range(1, 2), True)),
        (f"1 to 4 rows, any type over {ORT}", 1.0, worst(ORT, list(OURS), range(1, 5), False)),
        (f"16 to 512 rows, any type over {ORT}", 0.95, worst(ORT, list(OURS), range(16, 513), False)),
    )
    return [at_least(name, goal, value, "times as fast") for name, goal, value in wanted if value is not None]


if __name__ == "__main__":
    main(sys.argv[1:])
