"""Whether a graph on disk gives the outputs of its torch module, on every case of its description."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmc.exporters.base import Options, Precision
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.as_stored import as_stored
from vlmc.exporters.skeleton import cast_tensor
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sessions import OnnxSession

NOT_RUN = "ONNX Runtime's CPU has no kernels for bfloat16: outputs were not compared with torch"
"""What a report says of graphs in bf16."""


def largest_error(spec: GraphSpec, path: Path, options: Options) -> float | None:
    """Run the example and every case through both; return the largest difference relative to the output's scale.

    The module computes with the weights that the graph holds. None: there is nothing to run a graph of such a type.

    Raises:
        CheckFailed: it is above the tolerance, or an output has another shape; names the graph, output and case.
    """
    worst = 0.0
    if options.precision == "bf16":
        return None
    with as_stored(spec, path) if options.rounds else nullcontext():
        for name, case, error in _differences(spec, path, options.precision):
            if not error <= options.tolerance:
                raise CheckFailed(
                    f"{path.name} differs from torch by {error:.2g} of the scale of {name}, above the tolerance "
                    f"{options.tolerance:g}, for inputs {_sizes(case)}"
                )
            worst = max(worst, error)
    return worst


def rounding_error(spec: GraphSpec, path: Path) -> float:
    """Return the largest difference of a packed graph from the module with its own weights, relative as before."""
    return max(error for _, _, error in _differences(spec, path, "fp32"))


def _differences(spec: GraphSpec, path: Path, precision: Precision) -> Iterator[tuple[str, Mapping[str, Tensor], float]]:
    """Yield every output's name and difference from the module's, with the inputs, case by case."""
    with OnnxSession(path, frugal=spec.streamed) as session:
        for case in (spec.inputs, *spec.cases):
            expected = _reference(spec, case, precision)
            found = session.run({name: cast_tensor(tensor, precision).numpy() for name, tensor in case.items()})
            yield from ((name, case, _difference(found[name], one)) for name, one in expected.items())


def _reference(spec: GraphSpec, case: Mapping[str, Tensor], precision: Precision) -> dict[str, NDArray[np.float32]]:
    """Return the module's outputs in float32, from inputs rounded as the graph's are."""
    inputs = [_rounded(tensor, precision) for tensor in case.values()]
    with torch.no_grad():
        answer = spec.module(*inputs)
    answers = answer if isinstance(answer, tuple) else (answer,)
    return {name: tensor.float().numpy() for name, tensor in zip(spec.outputs, answers, strict=True)}


def _rounded(tensor: Tensor, precision: Precision) -> Tensor:
    return cast_tensor(tensor, precision).float() if tensor.is_floating_point() else tensor


def _difference(found: NDArray[np.generic], reference: NDArray[np.float32]) -> float:
    """Return max |found - reference| / max |reference|; infinite if shapes differ, NaN if a value is NaN."""
    if found.shape != reference.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    scale = max(float(np.abs(reference).max()), 1e-12)
    return float(np.abs(found.astype(np.float64) - reference).max()) / scale


def _sizes(case: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(case.items())[:3])
