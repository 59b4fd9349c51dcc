"""Whole decoders as rows and bars."""

import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median

from products.measuring import Reading, clock
from report import Bar, Row, at_least, three_digits

from decoders.measuring import (
    DECODE,
    DENSE_8,
    DENSE_16,
    ORT,
    PACKED,
    PACKED_INT8,
    PREFILL,
    SLOWEST,
    WHOLE_INT8,
    absent_peers,
    rest_of_token,
    runners,
    times,
)
from decoders.shapes import Decoder
from vlmc.runtime.kernels.packing import ValueType
from vlmc.toolchain.bench.predicting import packed_seconds

Taken = dict[str, dict[str, list[float]]]
PREDICTED = "predicted speed-up, decoding"


def measure(
    decoders: Sequence[Decoder], threads: int, rounds: int, without: Collection[str] = ()
) -> tuple[list[Row], list[Bar]]:
    """Measure each decoder; return its rows, and bars over all of them."""
    rows, bars = [], []
    for decoder in decoders:
        print(decoder.name, file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="vlmc-cpu24-") as folder:
            found = runners(decoder, Path(folder), threads, without)
            nbytes = {name: one.nbytes for name, one in found.items()}
            taken = times(found, rounds, clock(threads))
            read = _read(threads)
            rest = rest_of_token(decoder, Path(folder) / "0.onnx", threads)
            gains = _predicted(decoder, threads, median(taken[ORT][DECODE]), rest)
        rows += _rows(decoder, taken, nbytes, read)
        rows += _predicted_rows(decoder, taken, gains)
        bars += _bars(decoder, taken) + _prediction_bars(decoder, taken, gains)
    absent = absent_peers() | dict.fromkeys(without, "left out")
    rows += [Row(f"whole decoders: {name}: {why}", None, DECODE, None, "ms", None, None) for name, why in absent.items()]
    return rows, bars


def _read(threads: int) -> float:
    reading, now = Reading(threads, 256 << 20), clock(threads)
    speeds = []
    for _ in range(5):
        began = now()
        reading()
        speeds.append(reading.nbytes / (now() - began))
    return median(speeds)


def _rows(decoder: Decoder, taken: Taken, nbytes: dict[str, int], read: float) -> list[Row]:
    rows = []
    for name, phases in taken.items():
        title = f"{decoder.name}: {name}"
        rows.append(Row(title, None, "bytes of the products' weights", nbytes[name] / 1e6, "MB", None, None))
        if not phases[PREFILL]:
            rows.append(Row(f"{title}: a prompt takes over {SLOWEST:g} s", None, PREFILL, None, "ms", None, None))
            continue
        for phase, seconds in phases.items():
            gains = _gains(taken, ORT, name, phase)
            rows.append(
                Row(title, None, phase, three_digits(1e3 * median(seconds)), "ms", None, _spread([1e3 * t for t in seconds]))
            )
            if name != ORT:
                rows.append(Row(title, ORT, f"speed-up, {phase}", three_digits(median(gains)), "x", None, _spread(gains)))
        share = nbytes[name] / median(phases[DECODE]) / read
        rows.append(Row(title, "memory, read", "share of the memory's speed, decoding", three_digits(share), "", None, None))
    return rows


def _bars(decoder: Decoder, taken: Taken) -> list[Bar]:
    wanted = [(PACKED, ORT, DECODE, 2.0), (PACKED, ORT, PREFILL, 1.0)]
    for own, others, goal in ((WHOLE_INT8, DENSE_8, 1.2), (PACKED, DENSE_16, 1.3)):
        dense = {name: median(taken[name][DECODE]) for name in others if taken.get(name, {}).get(DECODE)}
        if dense:  # the fastest
            wanted.append((own, min(dense, key=lambda name: dense[name]), DECODE, goal))
    return [
        at_least(f"{decoder.name}: {phase}, {name} over {baseline}", goal, median(gains), "times as fast")
        for name, baseline, phase, goal in wanted
        if (gains := _gains(taken, baseline, name, phase))
    ]


def _predicted(decoder: Decoder, threads: int, dense: float, rest: float) -> dict[str, float]:
    """Return what `vlmc bench` would predict for the packed forms, given a token in fp32, and what of it is no product."""
    sizes = [(name, outputs, inputs) for name, outputs, inputs in decoder.products()]
    every = [(o, i, name != "head") for name, o, i in sizes for _ in range(1 if name == "head" else decoder.layers)]
    kinds: dict[str, ValueType] = {PACKED: "bf16", PACKED_INT8: "int8"}
    now = clock(threads)
    return {name: dense / (rest + packed_seconds(kind, every, threads, now)) for name, kind in kinds.items()}


def _predicted_rows(decoder: Decoder, taken: Taken, gains: dict[str, float]) -> list[Row]:
    rows = []
    for name, gain in gains.items():
        measured = median(_gains(taken, ORT, name, DECODE))
        title = f"{decoder.name}: {name}"
        rows.append(Row(title, ORT, PREDICTED, three_digits(gain), "x", round(measured / gain, 3), None))
    return rows


def _prediction_bars(decoder: Decoder, taken: Taken, gains: dict[str, float]) -> list[Bar]:
    off = {name: round(abs(median(_gains(taken, ORT, name, DECODE)) / gain - 1), 3) for name, gain in gains.items()}
    return [Bar(f"{decoder.name}: {name}: prediction", "off by at most 0.2", it, it <= 0.2) for name, it in off.items()]


def _gains(taken: Taken, baseline: str, name: str, phase: str) -> list[float]:
    return [other / own for other, own in zip(taken[baseline][phase], taken[name][phase], strict=False)]


def _spread(values: Sequence[float]) -> float:
    return three_digits(max(values) - min(values))
