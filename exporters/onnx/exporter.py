"""One ONNX graph per description: traced, labelled with its sparsity, and checked on the written file."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import onnx

from vlmc.exporters.backend import Backend
from vlmc.exporters.base import Activations, Exporter, Options, Precision, Progress
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx import BACKEND
from vlmc.exporters.onnx.as_stored import as_stored, held_weights
from vlmc.exporters.onnx.packed import EXACT, Packing, Repacked, check_dense, check_packed, let_round, pack_weights
from vlmc.exporters.onnx.parity import NOT_RUN, largest_error, rounding_error
from vlmc.exporters.onnx.sparsity import check_onnx, label
from vlmc.exporters.onnx.storage import Stored, keep_packed
from vlmc.exporters.onnx.tracing import opset_of, trace
from vlmc.exporters.onnx.weights import Weights
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError, one_line
from vlmc.runtime.kernels.native import require_library
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.reports import LayerReport
from vlmc.runtime.sessions import import_onnxruntime

PLAIN = Options()
LEVELS: dict[Activations, int] = {"fp32": EXACT, "bf16": 3, "int8": 4}
"""The operators' accuracy_level for what activations may be rounded to, as MatMulNBits has them."""
NOTHING = Repacked([], 0, 0, 0, 0)


@dataclass(frozen=True)
class GraphReport:
    """A checked graph; `max_error` is the largest difference from torch, as a fraction of the output's largest value.

    It is None for a type that nothing here can run: then outputs were not compared, and `note` says so. Where weights are
    packed, torch computes with them as they are stored, and no activations are rounded yet; `rounding_error` is how much all
    rounding changes torch's own outputs, a fraction too.
    `packed` counts the layers whose 2:4 weights are packed for the CPU, in the type `cpu_sparse`, and `dense` the other
    weights and tables of that type; `compensated` counts those of both that were given in whole numbers. The 2:4 weights
    take `packed_bytes`, and would take `bf16_bytes` dense in bf16.
    `stored` says what --packed saved; None: weights are stored dense.
    """

    graph: str
    opset: int
    precision: Precision
    cpu_sparse: ValueType | None
    packed: int
    dense: int
    compensated: int
    packed_bytes: int
    bf16_bytes: int
    stored: Stored | None
    bytes: int
    seconds: float
    cases: int
    max_error: float | None
    rounding_error: float | None
    tolerance: float
    note: str | None
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
        """Raise InputError where options contradict each other, EnvironmentLacks where the kernels are not built."""
        activations = options.cpu_activations
        if activations not in ("fp32", options.cpu_sparse):
            raise InputError(
                f"--cpu-activations {activations} needs --cpu-sparse {activations}: no other weights have such products"
            )
        if options.cpu_sparse is None:
            return
        if options.packed:
            raise InputError(
                "--packed and --cpu-sparse do not go together: --cpu-sparse packs weights already, in its own way"
            )
        if options.precision != "fp32":
            raise InputError(f"--cpu-sparse needs --precision fp32, not {options.precision}: its products are fp32")
        require_library()  # graphs are checked with the kernels

    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        reports = []
        for spec in specs:
            reports.append(export(spec, folder / f"{spec.name}.onnx", options))
            progress.advance(spec.name)
        if options.cpu_sparse and not any(report.packed for report in reports):
            raise InputError("--cpu-sparse: no layer is promised as 2:4, so there is nothing to pack: leave it out")
        if options.packed and not any(report.stored and report.stored.weights for report in reports):
            raise InputError("--packed: no layer is promised as 2:4, so there is nothing to pack: leave it out")
        found: dict[str, Any] = {"backend": BACKEND.name, "precision": options.precision, "cpu_sparse": options.cpu_sparse}
        found |= {"cpu_activations": options.cpu_activations, "packed": options.packed}
        return found | {"graphs": [asdict(report) for report in reports]}

    @contextmanager
    def as_exported(self, specs: Sequence[GraphSpec], folder: Path, options: Options) -> Iterator[None]:
        with ExitStack() as stack:
            for spec in specs if options.rounds else ():
                stack.enter_context(as_stored(spec, folder / f"{spec.name}.onnx"))
            yield


def export(spec: GraphSpec, path: Path, options: Options = PLAIN) -> GraphReport:
    """Write the graph to `path` and check it: the same outputs as torch, and the promised sparsity.

    Raises:
        CheckFailed: an output differs by more than the precision's tolerance, a promised layer is not in the graph, or
            its weight breaks the pattern.
    """
    start = perf_counter()
    trace(spec, path, options.precision)
    packed = _pack(spec, path, options.cpu_sparse, options) if options.cpu_sparse else NOTHING
    stored = keep_packed(path, spec.sparse) if options.packed else None
    label(path, spec.sparse)
    layers = check_onnx(path)
    for layer in layers:
        if layer.violation is not None:
            raise CheckFailed(f"{path.name}: {layer.layer} is not {layer.pattern}: {layer.violation}")
    check_graph(path)
    error = largest_error(spec, path, options)
    if options.cpu_activations != "fp32":
        let_round(path, LEVELS[options.cpu_activations])
    rounded = rounding_error(spec, path) if options.rounds else None
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    seconds = round(perf_counter() - start, 2)
    types, cases = (options.precision, options.cpu_sparse), 1 + len(spec.cases)
    counts = (len(packed.layers), packed.dense, packed.compensated, packed.packed_bytes, packed.bf16_bytes)
    note = NOT_RUN if error is None else None
    about = (spec.name, opset_of(spec, options.precision), *types, *counts, stored, size, seconds, cases)
    return GraphReport(*about, error, rounded, options.tolerance, note, layers)


def check_graph(path: Path) -> None:
    """Hold the file against the ONNX standard, types and shapes included.

    Raises:
        CheckFailed: `onnx.checker` finds something.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"{path.name} is not valid ONNX: {one_line(error)}") from None


def _pack(spec: GraphSpec, path: Path, kind: ValueType, options: Options) -> Repacked:
    """Pack the weights, so that no activations are rounded yet, and hold all that was rounded against the module's."""
    packing = Packing(kind, EXACT, options.span, spec.rounded if kind == "int8" else {})
    packed = pack_weights(path, spec.sparse, packing)
    check_packed(path, ((layer, spec.weight(f"{layer}.weight").numpy()) for layer in packed.layers), packing)
    others = held_weights(spec.module, Weights(onnx.load(path, load_external_data=False), path.parent))
    for layer in packed.layers:
        others.pop(f"{layer}.weight", None)
    check_dense(path, ((name, one.read(), one.of(spec.weight(name).numpy())) for name, one in others.items()), packing)
    return packed
