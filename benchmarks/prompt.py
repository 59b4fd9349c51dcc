"""Reading a prompt in ONNX Runtime on the CPU: subnormal numbers taken as zero, as `vlmc.runtime` does, and computed with.

The decoder is that of `cache.py`, its cache in place. The prompt comes first, in a cache with room for it; each token sees
those before it, and what it does not see leaves softmax as a number below 1.2e-38, or as zero. Both run one graph in turns,
on one thread; times are the processor's. A ratio is the median of the rounds', more than 1 is faster.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cache import AGREE, HIDDEN, LAYERS, describe, language_model
from pages import DOCS, fill
from products.measuring import Clock, clock
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, prepare, report, targets, three_digits
from torch import nn

from vlmc.exporters.onnx.tracing import trace
from vlmc.runtime.decoder_inputs import WRITE, returned
from vlmc.runtime.sessions import Array, OnnxSession
from vlmc.toolchain.deploy.causal import Cache, MaskedDecoder

NAME, PAGE = "prompt", DOCS / "cpu.md"
COMPUTED, ZERO = "computed with", "taken as zero"
TIME, SPEED = "time of a prompt", "speed-up"
LENGTHS, SPARE = (64, 600, 2048), 32


class Subnormal(OnnxSession):
    """A session that runs on its caller's thread as it is."""

    @contextmanager
    def ready(self, feeds: Mapping[str, Array]) -> Iterator[Any]:
        yield self._session


def read(found: Mapping[str, OnnxSession], length: int, rounds: int, now: Clock) -> dict[str, list[float]]:
    """Return everyone's seconds for a prompt, in turns after a round that does not count.

    Raises:
        RuntimeError: their outputs differ.
    """
    draw, taken = np.random.default_rng(length), {name: list[float]() for name in found}
    given = found[ZERO].inputs
    names = [name for name in given if name.startswith("past_key_values.")]
    places = np.arange(length)[None]
    feeds: dict[str, Array] = {"position_ids": places, WRITE: np.zeros(1, np.int64)}
    feeds["attention_mask"] = (np.arange(length + SPARE) < length)[None]
    caches = {name: {one: np.zeros((1, 3, length + SPARE, 64), np.float32) for one in names} for name in found}
    runs = {name: session.bound(returned(caches[name])).run for name, session in found.items()}
    for index in range(rounds + 1):
        feeds["inputs_embeds"] = draw.standard_normal((1, length, HIDDEN), np.float32)
        states = {}
        for name, run in runs.items():
            began = now()
            states[name] = run(feeds | caches[name])["logits"]
            if index:
                taken[name].append(now() - began)
        if not np.abs(states[ZERO] - states[COMPUTED]).max() <= AGREE * np.abs(states[COMPUTED]).max():
            raise RuntimeError("subnormal numbers change the outputs")
    return taken


def rows_and_bar(length: int, taken: Mapping[str, list[float]]) -> tuple[list[Row], Bar]:
    """Return what one length gave."""
    gains = [a / b for a, b in zip(taken[COMPUTED], taken[ZERO], strict=True)]
    rows = []
    for name, own in taken.items():
        spread = 1e3 * (max(own) - min(own))
        rows.append(
            Row(f"{length} tokens: {name}", None, TIME, three_digits(1e3 * median(own)), "ms", None, three_digits(spread))
        )
    name, spread = f"{length} tokens: {ZERO}", max(gains) - min(gains)
    rows.append(Row(name, COMPUTED, SPEED, three_digits(median(gains)), "x", None, three_digits(spread)))
    return rows, at_least(f"{name} over {COMPUTED}", 1, median(gains), "times as fast")


def table(found: Report) -> str:
    """Return the page's part."""
    lines = [f"| prompt | subnormal numbers {COMPUTED} | {ZERO} |", "|---|---:|---:|"]
    for at in dict.fromkeys(row.name.partition(":")[0] for row in found.rows):
        plain, fast = (found.value(f"{at}: {name}", TIME) for name in (COMPUTED, ZERO))
        lines.append(f"| {at} | {plain:g} | {fast:g} ({found.value(f'{at}: {ZERO}', SPEED):g}x) |")
    head = (
        f"Milliseconds for a prompt, {found.settings['layers']} layers of width {HIDDEN}, medians of interleaved rounds; "
        "in brackets how many times as fast, the median of the rounds' ratios."
    )
    where = f"Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n\n".join([head, "\n".join(lines), targets(found), where])


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="how often each is measured [default: 7; 1 if --quick]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        chosen.threads = 1  # a session's own threads take subnormal numbers as zero in both
        prepare(chosen)
        layers, rounds = (1 if chosen.quick else LAYERS), chosen.rounds or (1 if chosen.quick else 7)
        rows: list[Row] = []
        bars: list[Bar] = []
        with tempfile.TemporaryDirectory(prefix="vlmc-prompt-") as folder:
            model, path = language_model(layers), Path(folder) / "decoder.onnx"
            decoder = MaskedDecoder(model, nn.Identity(), in_place=True)
            trace(describe(ZERO, decoder, Cache.of(model.config)), path, "fp32")
            found = {COMPUTED: Subnormal(path, threads=1), ZERO: OnnxSession(path, threads=1)}
            for length in LENGTHS:
                more, bar = rows_and_bar(length, read(found, length, rounds, clock(1)))
                rows, bars = rows + more, [*bars, bar]
        finish(report(command(NAME, given), rows, bars, {"layers": layers, "rounds": rounds}), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


if __name__ == "__main__":
    main(sys.argv[1:])
