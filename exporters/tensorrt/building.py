"""From an ONNX file to the bytes of an engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.tensorrt.binding import Binding
from vlmc.exporters.tensorrt.inspecting import inspect
from vlmc.exporters.tensorrt.layers import EngineLayers, read_layers
from vlmc.exporters.tensorrt.timing import remembered
from vlmc.exporters.tensorrt.watching import watched
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks


@dataclass(frozen=True)
class Target:
    """The GPU that an engine is for, and how many bytes of its memory the builder may take to try a layer; None: all."""

    gpu: str
    workspace: int | None = None


@dataclass(frozen=True)
class Built:
    """An engine, the lines of its builder's log, and TensorRT's layers, as log and engine inspector list them."""

    engine: bytes
    log: list[str]
    layers: EngineLayers


def build(binding: Binding, spec: GraphSpec, path: Path, target: Target, say: Callable[[str], None]) -> Built:
    """Return the engine and what was said of it; `say` hears of each step of the build.

    Raises:
        CheckFailed: TensorRT cannot read or build the graph; the message has TensorRT's reason.
        EnvironmentLacks: TensorRT needs a GPU and finds none.
        KeyboardInterrupt: Ctrl-C was pressed; the builder stopped after its current step.
    """
    trt = binding.trt
    logger = _logger(trt)
    builder = _builder(binding, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise CheckFailed(f"TensorRT cannot read {spec.name}: {_one_line(reasons[0] if reasons else 'no reason given')}")
    config = _configure(binding, builder, spec, target)
    with remembered(binding, config, target.gpu):
        with watched(trt, config, lambda step: say(f"{spec.name}, {target.gpu}: {step}")):
            built = builder.build_serialized_network(network, config)
        if built is None:
            raise CheckFailed(f"TensorRT cannot build {spec.name} for {target.gpu}: {_one_line(_last_error(logger))}")
    engine, log = bytes(built), [line for _, line in logger.lines]
    return Built(engine, log, read_layers(log) | inspect(binding, engine, logger))


def _builder(binding: Binding, logger: Any) -> Any:
    try:
        return binding.trt.Builder(logger)
    except TypeError:  # raised by the constructor without a GPU
        remedy = "TensorRT-RTX needs none: pip uninstall tensorrt, then pip install 'vlmc[tensorrt-rtx]'"
        raise EnvironmentLacks(f"{binding.package} finds no GPU to build on; {remedy}") from None


def _configure(binding: Binding, builder: Any, spec: GraphSpec, target: Target) -> Any:
    trt = binding.trt
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if binding.ahead_of_time:
        config.num_compute_capabilities = 1
        config.set_compute_capability(binding.compute_capabilities[target.gpu], 0)
    if target.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, target.workspace)
    profile = builder.create_optimization_profile()
    for name, shapes in profile_shapes(spec).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    return config


def profile_shapes(spec: GraphSpec) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Map each dynamic input to its smallest, tuned and largest shape.

    Axes whose sizes depend on each other must agree in each of the three, or the build fails.
    """
    return {
        name: (
            _shape(spec, name, {axis: size.minimum for axis, size in axes.items()}),
            _shape(spec, name, {axis: size.optimum for axis, size in axes.items()}),
            _shape(spec, name, {axis: size.maximum for axis, size in axes.items()}),
        )
        for name, axes in spec.axes.items()
    }


def _shape(spec: GraphSpec, name: str, sizes: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sizes.get(axis, size) for axis, size in enumerate(spec.inputs[name].shape))


def describe_axis(axis: Axis) -> str:
    """Return `sequence 1..36..48`, the form of the build report."""
    return f"{axis.name} {axis.minimum}..{axis.optimum}..{axis.maximum}"


def _logger(trt: Any) -> Any:
    class Recorder(trt.ILogger):  # type: ignore[misc]
        """Keeps every line; TensorRT calls it from its own threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity, message))

    return Recorder()


def _last_error(logger: Any) -> str:
    bad = [line for severity, line in logger.lines if str(severity).endswith("ERROR")]
    return bad[-1] if bad else "no reason given"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
