"""One ONNX graph per description: traced, labelled with its sparsity, and checked on the written file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

from vlmc.exporters.backend import Backend
from vlmc.exporters.base import TOLERANCE, Exporter, Options, Precision, Progress
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx import BACKEND
from vlmc.exporters.onnx.parity import largest_error
from vlmc.exporters.onnx.sparsity import check_onnx, label
from vlmc.exporters.onnx.tracing import OPSET, trace
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks
from vlmc.runtime.reports import LayerReport
from vlmc.runtime.sessions import import_onnxruntime


@dataclass(frozen=True)
class GraphReport:
    """A checked graph; `max_error` is the largest difference from torch, as a fraction of the output's largest value."""

    graph: str
    precision: Precision
    bytes: int
    seconds: float
    cases: int
    max_error: float
    tolerance: float
    layers: list[LayerReport]


class OnnxExporter(Exporter):
    """Writes `<graph>.onnx`."""

    backend: ClassVar[Backend] = BACKEND

    def requires(self) -> None:
        missing = [package for package in BACKEND.packages if find_spec(package) is None]
        if missing:
            raise EnvironmentLacks(f"{' and '.join(missing)} not installed: {BACKEND.remedy}")
        import_onnxruntime()  # graphs are checked with it

    def check(self, options: Options) -> None:
        """Every option is supported."""

    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        precision = options.precision
        reports = []
        for spec in specs:
            reports.append(asdict(export(spec, folder / f"{spec.name}.onnx", precision)))
            progress(spec.name)
        return {"backend": BACKEND.name, "opset": OPSET, "precision": precision, "graphs": reports}


def export(spec: GraphSpec, path: Path, precision: Precision = "fp32") -> GraphReport:
    """Write the graph to `path` and check it: the same outputs as torch, and the promised sparsity.

    Raises:
        CheckFailed: an output differs by more than the precision's tolerance, a promised layer is not in the graph, or
            its weight breaks the pattern.
    """
    start = perf_counter()
    trace(spec, path, precision)
    label(path, spec.sparse)
    layers = check_onnx(path)
    for layer in layers:
        if layer.violation is not None:
            raise CheckFailed(f"{path.name}: {layer.layer} is not {layer.pattern}: {layer.violation}")
    error = largest_error(spec, path, precision)
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    seconds = round(perf_counter() - start, 2)
    return GraphReport(spec.name, precision, size, seconds, 1 + len(spec.cases), error, TOLERANCE[precision], layers)
