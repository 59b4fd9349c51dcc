"""A decoder's key-value cache in ONNX Runtime on the CPU: concatenated or in place, one token more after some, in turns.

The decoder is transformers' Llama with random weights in SmolLM2's sizes, cut to a few layers and without its head, exported
by vlmc and run by its sessions. "concatenated, Attention" is neither export: it tells how much of the gain is the operator's
that reads keys without repeating them, and how much the buffers'. A ratio is the median of a round's times of the
concatenated graph over the contestant's, more than 1 is faster. With --threads 1 times are the processor's, else the wall
clock's. Shapes: B rows, S tokens, D hidden size, K key-value heads, T columns of the cache, E head size.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pages import DOCS, fill
from products.measuring import Clock, clock
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, prepare, report, targets, three_digits
from torch import nn

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.onnx.tracing import trace
from vlmc.runtime.decoder_inputs import WRITE, renamed, returned, widened
from vlmc.runtime.sessions import Array, OnnxSession
from vlmc.toolchain.deploy.causal import Cache, Decoder, MaskedDecoder
from vlmc.toolchain.deploy.in_place import OPSET, grouped_attention

NAME, PAGE = "cache", DOCS / "cpu.md"
CONCATENATED, ATTENTION, IN_PLACE = "concatenated", "concatenated, Attention", "in place"
TIME, SPEED = "time of a token", "speed-up"
LENGTHS, ROWS = (64, 512, 4096), (1, 8)
HIDDEN, LAYERS = 576, 4
AGREE = 1e-4  # of the largest output: everyone computes the same


class Grouped(MaskedDecoder):
    """A concatenated cache, read by the operator that the graph in place has."""

    def attention(self) -> AbstractContextManager[None]:
        return grouped_attention(self.language_model)


def language_model(layers: int) -> Any:
    """Return transformers' Llama with random weights."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 1536, "num_hidden_layers": layers, "vocab_size": 8}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 8192}
    return LlamaModel(LlamaConfig(**sizes, **heads)).eval()


def describe(name: str, module: Decoder, cache: Cache) -> GraphSpec:
    """Describe a decoder's graph, with any example."""
    rows, new, had = 2, 3, 4
    room = had + new if module.in_place else had
    inputs = {
        "inputs_embeds": torch.randn(rows, new, HIDDEN),
        "attention_mask": torch.ones(rows, had + new, dtype=torch.long),
        "position_ids": torch.arange(had, had + new).repeat(rows, 1),
    }
    inputs |= {WRITE: torch.full((rows,), had)} if module.in_place else {}
    inputs |= {f"past_key_values.{one}": torch.randn(rows, cache.heads, room, cache.head_size) for one in cache.names}
    batch, total = {0: Axis("batch", 1, 1, 8)}, Axis("total", 1, 8, 8192)
    columns = {"inputs_embeds": Axis("sequence", 1, 1, 8192), "position_ids": Axis("sequence", 1, 1, 8192)}
    axes = {one: batch | ({1: columns[one]} if one in columns else {}) for one in inputs}
    axes["attention_mask"] = batch | {1: total}
    past = total if module.in_place else Axis("past", 0, 0, 8192)
    axes |= {f"past_key_values.{one}": batch | {2: past} for one in cache.names}
    outputs = ("logits", *(f"present.{one}" for one in cache.names))
    return GraphSpec(name, module, inputs, outputs, axes, opset=18 if type(module) is Decoder else OPSET)


def sessions(layers: int, folder: Path, threads: int) -> dict[str, OnnxSession]:
    """Export everyone's graph, of the same weights."""
    model, head = language_model(layers), nn.Identity()
    cache = Cache.of(model.config)
    modules = {
        CONCATENATED: Decoder(model, head),
        ATTENTION: Grouped(model, head),
        IN_PLACE: MaskedDecoder(model, head, in_place=True),
    }
    found = {}
    for number, (name, module) in enumerate(modules.items()):
        path = folder / f"{number}.onnx"
        trace(describe(name, module, cache), path, "fp32")
        found[name] = OnnxSession(path, threads=threads)
    return found


class Decoding:
    """A session that has a cache of so many tokens, and adds one after the other."""

    def __init__(self, session: OnnxSession, in_place: bool, cache: Mapping[str, Array], spare: int) -> None:
        self._in_place = in_place
        self._rows, self._length = next(iter(cache.values())).shape[::2][:2]
        self._room = self._length + spare
        self._cache = {name: widened(array, self._room) if in_place else array for name, array in cache.items()}
        self._runs = (session.bound(returned(self._cache)) if in_place else session).run

    def step(self, embeds_B1D: Array) -> Array:
        """Add a token to each row; return the last hidden states (B, 1, D)."""
        feeds = {"inputs_embeds": embeds_B1D, "position_ids": np.full((self._rows, 1), self._length)}
        total = self._room if self._in_place else self._length + 1
        feeds["attention_mask"] = (np.arange(total) <= self._length)[None].repeat(self._rows, 0)
        if self._in_place:
            feeds[WRITE] = np.full(self._rows, self._length)
        outputs = self._runs(feeds | self._cache)
        self._length += 1
        states = outputs.pop("logits")
        self._cache = renamed(outputs)
        return states


def decode(
    found: Mapping[str, OnnxSession], length: int, rows: int, rounds: int, steps: int, now: Clock
) -> dict[str, list[float]]:
    """Return everyone's seconds for a token, in turns after a round that does not count.

    Raises:
        RuntimeError: somebody's outputs are not those of the concatenated graph.
    """
    draw = np.random.default_rng(length + rows)
    names = [name for name in found[CONCATENATED].inputs if name.startswith("past_key_values.")]
    shape = (rows, 3, length, 64)
    cache = {name: draw.standard_normal(shape, np.float32) for name in names}
    room = max(32, length // 8)  # as the engine leaves
    decoding = {name: Decoding(session, name == IN_PLACE, cache, room) for name, session in found.items()}
    taken: dict[str, list[float]] = {name: [] for name in found}
    for index in range(rounds + 1):
        embeds = draw.standard_normal((steps, rows, 1, HIDDEN), np.float32)
        last = {}
        for name, one in decoding.items():
            began = now()
            for step in embeds:
                last[name] = one.step(step)
            if index:
                taken[name].append((now() - began) / steps)
        _same(last)
    return taken


def _same(last: Mapping[str, Array]) -> None:
    expected = last[CONCATENATED]
    for name, states in last.items():
        if not np.abs(states - expected).max() <= AGREE * np.abs(expected).max():
            raise RuntimeError(f"{name} gives other outputs than {CONCATENATED}")


def rows_and_bars(length: int, rows: int, taken: Mapping[str, list[float]]) -> tuple[list[Row], list[Bar]]:
    """Return what one length and number of rows gave."""
    made, at = [], f"{length} tokens, {rows} {'row' if rows == 1 else 'rows'}"
    gains = {name: [a / b for a, b in zip(taken[CONCATENATED], own, strict=True)] for name, own in taken.items()}
    for name, seconds in taken.items():
        spread = 1e3 * (max(seconds) - min(seconds))
        made.append(Row(f"{at}: {name}", None, TIME, three_digits(1e3 * median(seconds)), "ms", None, three_digits(spread)))
        if name != CONCATENATED:
            spread = max(gains[name]) - min(gains[name])
            made.append(
                Row(f"{at}: {name}", CONCATENATED, SPEED, three_digits(median(gains[name])), "x", None, three_digits(spread))
            )
    return made, [at_least(f"{at}: in place over concatenated", 1, median(gains[IN_PLACE]), "times as fast")]


def table(found: Report) -> str:
    """Return the page's part."""
    lines = ["| cache, rows | " + " | ".join((CONCATENATED, ATTENTION, IN_PLACE)) + " |", "|---|---:|---:|---:|"]
    for at in dict.fromkeys(row.name.partition(":")[0] for row in found.rows):
        cells = []
        for name in (CONCATENATED, ATTENTION, IN_PLACE):
            gain = found.value(f"{at}: {name}", SPEED)
            cells.append(f"{found.value(f'{at}: {name}', TIME):g}" + (f" ({gain:g}x)" if gain else ""))
        lines.append(f"| {at} | {' | '.join(cells)} |")
    head = (
        f"Milliseconds for a token of {found.settings['layers']} layers of width {HIDDEN}, medians of interleaved rounds; "
        "in brackets how many times as fast as concatenated, the median of the rounds' ratios."
    )
    return "\n\n".join(
        [head, "\n".join(lines), targets(found), f"Measured on {found.machine}, {found.date}: `{found.command}`."]
    )


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="how often each is measured [default: 7; 2 if --quick]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    chosen = parser.parse_args(given)
    if not chosen.table:
        prepare(chosen)
        layers, steps = (1, 1) if chosen.quick else (LAYERS, 4)
        rounds, threads = chosen.rounds or (2 if chosen.quick else 7), chosen.threads or torch.get_num_threads()
        rows: list[Row] = []
        bars: list[Bar] = []
        with tempfile.TemporaryDirectory(prefix="vlmc-cache-") as folder:
            found = sessions(layers, Path(folder), threads)
            for count in ROWS:
                for length in LENGTHS:
                    print(f"{length} tokens, {count} rows ...", file=sys.stderr, flush=True)
                    taken = decode(found, length, count, rounds, steps, clock(threads))
                    more = rows_and_bars(length, count, taken)
                    rows, bars = rows + more[0], bars + more[1]
        settings = {"layers": layers, "rounds": rounds, "threads": threads}
        finish(report(command(NAME, given), rows, bars, settings), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


if __name__ == "__main__":
    main(sys.argv[1:])
