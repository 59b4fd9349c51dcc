"""Engines for every graph and GPU: from a checked ONNX graph, strongly typed, with sparse weights allowed."""

from collections import Counter
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
from vlmc.exporters.onnx.sparsity import compare_weights
from vlmc.exporters.tensorrt import BACKEND
from vlmc.exporters.tensorrt.binding import Binding, bind
from vlmc.exporters.tensorrt.building import Target, build, describe_axis
from vlmc.exporters.tensorrt.layers import LayerChoice, choices
from vlmc.exporters.tensorrt.log import parse
from vlmc.runtime.errors import CheckFailed, InputError
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
    says why. `layers` are all weights, with what was chosen for each and why.
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
    layers: list[LayerChoice]
    note: str | None


class TensorrtExporter(Exporter):
    """Writes `<graph>.<gpu>.engine`."""

    backend: ClassVar[Backend] = BACKEND

    def requires(self) -> None:
        OnnxExporter().requires()
        bind()

    def check(self, options: Options) -> None:
        binding = bind()
        binding.targets(options.gpus)
        if options.require_sparse is not None and binding.ahead_of_time:
            raise InputError(f"--require-sparse: {AHEAD_OF_TIME}: leave it out, or build with TensorRT on that GPU")

    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        binding = bind()
        gpus = binding.targets(options.gpus)
        graphs: list[GraphReport] = []
        engines: list[EngineReport] = []
        for spec in specs:
            with TemporaryDirectory() as scratch:
                path = Path(scratch) / f"{spec.name}.onnx"
                graphs.append(export(spec, path, Options(options.precision)))
                engines += [_engine(binding, spec, path, Target(gpu, options.workspace), folder, progress) for gpu in gpus]
            require_sparse(engines[-len(gpus) :], options.require_sparse)
            progress.advance(spec.name)
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


def _engine(binding: Binding, spec: GraphSpec, path: Path, target: Target, folder: Path, progress: Progress) -> EngineReport:
    start = perf_counter()
    built = build(binding, spec, path, target, progress.say)
    file = folder / f"{spec.name}.{target.gpu}.engine"
    file.write_bytes(built.engine)
    layers = compare_weights(path, SPARSE_CORES)
    log = parse(built.log)
    silent = AHEAD_OF_TIME if binding.ahead_of_time else SILENT
    return EngineReport(
        graph=spec.name,
        gpu=target.gpu,
        file=file.name,
        bytes=len(built.engine),
        seconds=round(perf_counter() - start, 2),
        eligible=[layer.layer for layer in layers if layer.violation is None],
        dense=[layer.layer for layer in layers if layer.violation is not None],
        log_eligible=None if log.eligible is None else list(log.eligible),
        log_chosen=None if log.chosen is None else list(log.chosen),
        layers=choices(spec, path, layers, log, built.layers, known=not binding.ahead_of_time),
        note=silent if log.chosen is None else None,
    )


def require_sparse(engines: Sequence[EngineReport], share: float | None) -> None:
    """Check that each engine runs such a share of its eligible layers sparse; None: any.

    Raises:
        CheckFailed: one runs fewer; the message has the commonest reason.
    """
    for engine in engines if share is not None else ():
        eligible = [layer for layer in engine.layers if layer.eligible]
        others = [layer.why for layer in eligible if not layer.chosen]
        if share is not None and len(others) > (1 - share) * len(eligible) + 1e-9:
            reason, count = Counter(others).most_common(1)[0]
            ran = f"{len(eligible) - len(others)} of {len(eligible)} 2:4 layers run sparse"
            told = f"{100 * share:g} % are required; {count} do not for this reason: {reason}"
            raise CheckFailed(f"{engine.file}: {ran}, {told}")


def _profile(spec: GraphSpec) -> dict[str, list[str]]:
    return {name: [describe_axis(axis) for axis in axes.values()] for name, axes in spec.axes.items()}
