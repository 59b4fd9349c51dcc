"""What it costs to hash an artifact's files while it is loaded: from `load` to the first answer, in turns.

An artifact of some 650 MB of graphs (SmolLM2-135M's decoder in random weights) is loaded and asked once: with its files
hashed for the first time, with what was hashed before known (same size, inode and time), and with sizes compared alone. All
in one process, in an order that turns round by round; the files are in the page cache, so that no disk is timed. A ratio is
the median of the rounds' ratios to comparing sizes, its spread from the least to the greatest.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from pages import DOCS, fill
from PIL import Image
from report import RESULTS, Bar, Report, Row, arguments, command, finish, prepare, report, targets
from serving.models import SMOL, exported

from vlmc.runtime import load
from vlmc.runtime.model import Verify

NAME, PAGE = "first_load", DOCS / "runtime.md"
SIZES, HASHED, KNOWN = "sizes alone", "hashed for the first time", "hashed before"
VERIFY: dict[str, Verify] = {SIZES: "size", HASHED: True, KNOWN: True}
TIME, SHARE = "load and first answer", "of sizes alone"
MOST = 1.05
"""A few percent: what the first hashing may cost."""
ROUNDS = 15


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help=f"how often each is measured [default: {ROUNDS}]")
    parser.add_argument("--keep", type=Path, help="a folder for the exported model, to use it again")
    parser.add_argument("--table", action="store_true", help="measure nothing: fill docs/runtime.md from the results")
    chosen = parser.parse_args(given)
    prepare(chosen)
    if not chosen.table:
        with tempfile.TemporaryDirectory() as scratch:
            finish(run(chosen, Path(scratch), command(NAME, given)), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def run(chosen: argparse.Namespace, scratch: Path, line: str) -> Report:
    """Load everyone's way, in turns."""
    blocks, rounds = (2, 1) if chosen.quick else (30, chosen.rounds or ROUNDS)
    artifact = exported(SMOL, chosen.keep or scratch, blocks)
    taken: dict[str, list[float]] = {name: [] for name in VERIFY}
    orders = [list(VERIFY), [HASHED, KNOWN, SIZES]]
    for index in range(rounds + 1):
        fresh = scratch / f"cache-{index}"
        for name in orders[index % 2]:
            seconds = once(artifact, VERIFY[name], fresh)
            if index:  # the first round does not count
                taken[name].append(seconds)
    size = sum(path.stat().st_size for path in (artifact / "onnx").iterdir())
    return report(line, *rows_and_bars(taken), {"rounds": rounds, "blocks": blocks, "megabytes": round(size / 1e6)})


def once(artifact: Path, verify: Verify, cache: Path) -> float:
    """Return the seconds from `load` to the end of the first answer; digests are kept in that cache."""
    os.environ["VLMC_CACHE"] = str(cache)
    image = Image.new("RGB", (64, 64), "white")
    began = perf_counter()
    with load(artifact, verify=verify) as model:
        model.generate(image, "what is it ?", max_new_tokens=1)
        return perf_counter() - began


def rows_and_bars(taken: dict[str, list[float]]) -> tuple[list[Row], list[Bar]]:
    """Return everyone's time and its ratio to that of comparing sizes, and what is asked of the first hashing."""
    rows, shares = [], {}
    for name, seconds in taken.items():
        ratios = [own / base for own, base in zip(seconds, taken[SIZES], strict=True)]
        shares[name] = round(median(ratios), 3)
        shown = (None, None, None) if name == SIZES else (SIZES, shares[name], round(max(ratios) - min(ratios), 3))
        rows.append(Row(name, shown[0], TIME, round(median(seconds), 3), "s", *shown[1:]))
    bar = Bar(f"{HASHED}, {TIME} {SHARE}", f"at most {MOST:g} x", shares[HASHED], shares[HASHED] <= MOST)
    return rows, [bar]


def table(found: Report) -> str:
    """Return the results in Markdown."""
    lines = [f"| files | {TIME} | {SHARE} |", "|---|---:|---:|"]
    for row in found.rows:
        share = "" if row.ratio is None else f"{row.ratio:.3f} ({row.spread:.3f})"
        lines.append(f"| {row.name} | {row.value:.2f} s | {share} |")
    where = (
        f"Graphs of {found.settings['megabytes']} MB, medians of {found.settings['rounds']} rounds, in brackets the spread."
    )
    measured = f"{where} Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n\n".join(["\n".join(lines), targets(found), measured])


if __name__ == "__main__":
    main(sys.argv[1:])
