"""verify-sparsity: read the weights' own bits and hold them against the pattern that the manifest promises.

Shapes: O out features, I in features. A pruned weight must be +0.0, every bit clear: a negative zero has broken sparse
kernels before.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.artifact import Artifact, Layer
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.reports import LayerReport
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.runtime.tensors import MASKS, TensorFile, open_weights

Bits = NDArray[Any]


def verify_path(path: Path, target: str | None) -> list[LayerReport]:
    """Return the reports of an artifact's folder, or of an ONNX file (`target`: its pattern, where vlmc did not write it).

    Raises:
        InputError: the path is neither, or cannot be read.
    """
    if path.is_dir() or path.suffix != ".onnx":
        return verify_artifact(Artifact.open(path))
    from vlmc.exporters.onnx.sparsity import check_onnx

    return check_onnx(path, SparsityPattern.parse(target) if target else None)


def verify_artifact(artifact: Artifact) -> list[LayerReport]:
    """Return a report for every layer that the manifest promises, in its order.

    Raises:
        InputError: the weights or the masks cannot be read, or a promised layer is not among them.
    """
    if not (artifact.root / MASKS).is_file():
        raise InputError(f"{artifact.root / MASKS} is missing: make the artifact anew")
    weights, masks = open_weights(artifact.root), TensorFile(artifact.root / MASKS)
    return [_report(name, layer, weights, masks, artifact.root) for name, layer in artifact.manifest.layers.items()]


def ensure_sparsity(artifact: Artifact) -> list[LayerReport]:
    """Return the reports of `verify_artifact`.

    Raises:
        CheckFailed: a layer breaks its pattern; the message names the first one and the position.
    """
    reports = verify_artifact(artifact)
    raise_first_violation(reports)
    return reports


def raise_first_violation(reports: list[LayerReport]) -> None:
    """Raise CheckFailed for the first report that has a violation."""
    broken = [report for report in reports if report.violation]
    if broken:
        first = broken[0]
        more = f" ({len(broken)} of {len(reports)} layers are broken)" if len(broken) > 1 else ""
        raise CheckFailed(f"{first.layer} does not hold {first.pattern}: {first.violation}{more}")


def _report(name: str, layer: Layer, weights: dict[str, TensorFile], masks: TensorFile, root: Path) -> LayerReport:
    if layer.tensor not in weights or layer.tensor not in masks:
        raise InputError(f"{root} has no weight or no mask called {layer.tensor}, which the manifest promises")
    bits_OI = weights[layer.tensor][layer.tensor]
    if bits_OI.ndim != 2:
        raise InputError(f"{root}: {layer.tensor} is no matrix")
    rows, columns = bits_OI.shape
    packed = masks[layer.tensor]
    if packed.shape != (rows, -(-columns // 8)):
        raise InputError(f"{root / MASKS}: the mask of {layer.tensor} does not fit its weight")
    keep_OI = np.unpackbits(packed, axis=1, count=columns).astype(bool)
    nonzero = int(np.count_nonzero(bits_OI))
    return LayerReport(
        layer=name,
        part=layer.part,
        pattern=layer.pattern,
        rows=rows,
        columns=columns,
        sparsity=1 - nonzero / bits_OI.size,
        nonzero=nonzero,
        violation=_violation(bits_OI, keep_OI, layer.sparsity),
    )


def _violation(bits_OI: Bits, keep_OI: NDArray[np.bool_], pattern: SparsityPattern) -> str | None:
    if not pattern.divides(bits_OI.shape[1]):
        return f"{bits_OI.shape[1]} columns do not fall into groups of {pattern.m}"
    broken = pattern.violations(bits_OI == 0)
    if broken.any():
        return describe_group(bits_OI, broken, pattern)
    if pattern.violations(~keep_OI).any():
        row, group = np.argwhere(pattern.violations(~keep_OI))[0]
        return f"its mask keeps too many weights in row {row}, group {group}"
    strays = (bits_OI != 0) & ~keep_OI
    if strays.any():
        row, column = np.argwhere(strays)[0]
        return f"row {row}, column {column} is not +0.0, but its mask says pruned"
    return None


def describe_group(bits_OI: Bits, broken: NDArray[np.bool_], pattern: SparsityPattern) -> str:
    """Say where the first broken group is, and how many weights it holds."""
    row, group = (int(index) for index in np.argwhere(broken)[0])
    if pattern.m is None:
        zeros = int((bits_OI[row] == 0).sum())
        return f"row {row} has {zeros} zeros of {pattern.zeros(bits_OI.shape[1])}"
    columns = slice(group * pattern.m, (group + 1) * pattern.m)
    count = int(np.count_nonzero(bits_OI[row, columns]))
    return f"row {row}, columns {columns.start}-{columns.stop - 1} hold {count} non-zero weights, {pattern.n} allowed"
