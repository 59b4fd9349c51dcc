"""What a decoder's token takes besides its products with weights, by ONNX Runtime's own times of operators."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from vlmc.runtime.decoder_inputs import WRITE, returned
from vlmc.runtime.sessions import Array, OnnxSession

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"})
IDLE = "Reshape"  # gives its input another shape, and copies nothing
FIRST, RUNS = 3, 8
"""Runs that do not count, and all of them."""
_PAST = "past_key_values."
_ENDING = "_kernel_time"


def beside_products(path: Path, feeds: Mapping[str, Array], threads: int) -> float:
    """Return the seconds that a decoder's graph takes for one step in all operators but products with weights.

    Raises:
        InputError, EnvironmentLacks, CheckFailed: as `OnnxSession`.
    """
    with tempfile.TemporaryDirectory(prefix="vlmc-bench-") as folder:
        with OnnxSession(path, threads=threads, times=Path(folder) / "times") as session:
            cache = {name: array for name, array in feeds.items() if name.startswith(_PAST)}
            run = session.bound(returned(cache)).run if WRITE in feeds else session.run
            for _ in range(RUNS):
                run(feeds)
        (written,) = Path(folder).glob("times*")
        return beside(json.loads(written.read_text(encoding="utf-8")))


def beside(events: Iterable[Mapping[str, Any]]) -> float:
    """Return the same from what ONNX Runtime wrote, the median of its runs but the first few.

    A product of two inputs, as in attention that is no operator of its own, counts; one with a weight, a matrix, does not.
    Writing a time down takes microseconds, which count as the operator's: as long as one takes that does next to nothing.
    """
    runs: list[tuple[int, int]] = []
    others: list[tuple[int, int, str]] = []
    for event in events:
        if event["name"] == "model_run":
            runs.append((event["ts"], event["ts"] + event["dur"]))
        elif event.get("cat") == "Node" and event["name"].endswith(_ENDING) and not _is_weighted(event["args"]):
            others.append((event["ts"], event["dur"], event["args"]["op_name"]))
    counted = [[other for other in others if start <= other[0] <= end] for start, end in sorted(runs)[FIRST:]]
    idle = [taken for run in counted for _, taken, name in run if name == IDLE]
    cost = median(idle) if idle else 0
    return median(sum(max(0, taken - cost) for _, taken, _ in run) for run in counted) / 1e6


def _is_weighted(operator: Mapping[str, Any]) -> bool:
    """Say whether it is a product whose second input is a matrix, or none that ONNX Runtime tells of: one that it packed."""
    shapes = [shape for described in operator["input_type_shape"] for shape in described.values()]
    return operator["op_name"] in PRODUCTS and (len(shapes) < 2 or len(shapes[1]) == 2)
