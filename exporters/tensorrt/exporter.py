"""Engines for every graph and GPU: from a checked ONNX graph, strongly typed, with sparse weights allowed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ClassVar

from vlmc.exporters.backend import Backend
from vlmc.exporters.base import Exporter, Options, Progress
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.exporter import GraphReport, OnnxExporter, export
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.exporters.tensorrt import BACKEND
from vlmc.exporters.tensorrt.binding import Binding, bind
from vlmc.exporters.tensorrt.building import build, describe_axis
from vlmc.exporters.tensorrt.log import parse
from vlmc.runtime.sparsity import SparsityPattern

SPARSE_CORES = SparsityPattern.parse("2:4")
FLAGS = ("STRONGLY_TYPED", "SPARSE_WEIGHTS")
AHEAD_OF_TIME = (
    "TensorRT-RTX chooses kernels at run time on the target GPU: which of the eligible layers run sparse cannot be "
    "known ahead of time"
)
SILENT = "the builder's log says nothing about sparsity"


@dataclass(frozen=True)
class EngineReport:
    """One engine. `eligible` are the layers whose weights in the graph are 2:4, as vlmc itself finds.

    `log_eligible` and `log_chosen` are from the builder's log, in TensorRT's names; None: the log does not say, and `note`
    says why.
    """

    graph: str
    gpu: str
    file: str
    bytes: int
    seconds: float
    eligible: list[str]
    dense: list[str]
    log_eligible: list[str] | None
    log_chosen: list[str] | None
    note: str | None


class TensorrtExporter(Exporter):
    """Writes `<graph>.<gpu>.engine`."""

    backend: ClassVar[Backend] = BACKEND

    def requires(self) -> None:
        OnnxExporter().requires()
        bind()

    def check(self, options: Options) -> None:
        bind().targets(options.gpus)

    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        binding = bind()
        gpus = binding.targets(options.gpus)
        graphs: list[GraphReport] = []
        engines: list[EngineReport] = []
        for spec in specs:
            with TemporaryDirectory() as scratch:
                path = Path(scratch) / f"{spec.name}.onnx"
                graphs.append(export(spec, path, Options(options.precision)))
                engines += [_engine(binding, spec, path, gpu, folder) for gpu in gpus]
            progress(spec.name)
        return {
            "backend": BACKEND.name,
            "package": binding.package,
            "version": binding.version,
            "precision": options.precision,
            "flags": list(FLAGS),
            "profiles": {spec.name: _profile(spec) for spec in specs},
            "graphs": [asdict(graph) for graph in graphs],
            "engines": [asdict(engine) for engine in engines],
        }


def _engine(binding: Binding, spec: GraphSpec, path: Path, gpu: str, folder: Path) -> EngineReport:
    start = perf_counter()
    engine, lines = build(binding, spec, path, gpu)
    file = folder / f"{spec.name}.{gpu}.engine"
    file.write_bytes(engine)
    layers = check_onnx(path, SPARSE_CORES)
    log = parse(lines)
    silent = AHEAD_OF_TIME if binding.ahead_of_time else SILENT
    return EngineReport(
        graph=spec.name,
        gpu=gpu,
        file=file.name,
        bytes=len(engine),
        seconds=round(perf_counter() - start, 2),
        eligible=[layer.layer for layer in layers if layer.violation is None],
        dense=[layer.layer for layer in layers if layer.violation is not None],
        log_eligible=None if log.eligible is None else list(log.eligible),
        log_chosen=None if log.chosen is None else list(log.chosen),
        note=silent if log.chosen is None else None,
    )


def _profile(spec: GraphSpec) -> dict[str, list[str]]:
    return {name: [describe_axis(axis) for axis in axes.values()] for name, axes in spec.axes.items()}
