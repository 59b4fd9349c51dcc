"""verify-sparsity: check the bits of the stored weights against the pattern in the manifest.

Shapes: O out features, I in features. A pruned weight must be +0.0, with every bit clear: negative zeros have broken sparse
kernels.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc import exporters
from vlmc.runtime.artifact import Artifact, Layer
from vlmc.runtime.artifact.folder import MANIFEST
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.reports import LayerReport, examine
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.runtime.tensors import MASKS, TensorFile, open_weights

Bits = NDArray[Any]


DENSE = 0.01
"""A layer with a smaller share of zeros counts as never pruned."""
_EXPONENTS = {"F64": 0x7FF0000000000000, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}  # all ones: NaN or infinity
_PARAMETERS = ("weight", "bias")  # a buffer, such as an attention mask, may be infinite
_AT_ONCE = 1 << 22  # weights that are looked at together


def verify_path(path: Path, target: str | None) -> list[LayerReport]:
    """Return the reports of an artifact, a graph's file, or a model folder of transformers.

    `target` is the pattern of a model that vlmc did not write.

    Raises:
        InputError: the path is something else or cannot be read, or `target` is missing.
    """
    pattern = SparsityPattern.parse(target) if target else None
    backend = None if path.is_dir() else exporters.of_file(path)
    if backend is not None and backend.verifier is not None:
        reports: list[LayerReport] = exporters.resolve(backend.verifier)(path, pattern)
        return reports
    if (path / MANIFEST).is_file() or not (path / "config.json").is_file():
        return verify_artifact(Artifact.open(path))
    if pattern is None:
        raise InputError(f"{path} is not a vlmc artifact, so its pattern is not known: add --target, such as --target 2:4")
    return verify_model(path, pattern)


def verify_model(folder: Path, pattern: SparsityPattern) -> list[LayerReport]:
    """Check every layer that vlmc would prune against one pattern, in a model of any origin.

    Raises:
        InputError: vlmc does not know the model, its weights are damaged, or the pattern asks for no zero at all.
    """
    import torch

    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.prune.patterns import refuse_nothing

    saved, weights = SavedModel(str(folder), folder), open_weights(folder)
    family = saved.family
    model = saved.stream(torch.device("cpu"))
    found = []
    for name, part in family.prunable(model.module).items():
        tensor = model.stored(f"{name}.weight")
        report = examine(name, part, pattern, weights[tensor][tensor] == 0)
        dense = report.violation is not None and report.sparsity < DENSE
        violation = f"dense: {report.violation}" if dense else report.violation or not_finite(weights[tensor], tensor)
        found.append(replace(report, violation=violation))
    refuse_nothing({report.layer: pattern for report in found}, {report.layer: report.columns for report in found})
    return found


def damages(path: Path) -> list[str]:
    """Return what is wrong with a model folder beside its patterns, a line for each finding.

    These are files that an artifact's manifest lists with another SHA-256, and weights outside the pruned layers that are
    NaN or infinite. A graph's file has none.

    Raises:
        InputError: the folder's files cannot be read.
    """
    if not path.is_dir():
        return []
    found, pruned = [], set[str]()
    if (path / MANIFEST).is_file():
        artifact = Artifact.open(path)
        found += [f"{name} is not the file that the manifest lists (SHA-256 differs)" for name in artifact.differing()]
        pruned = {layer.tensor for layer in artifact.manifest.layers.values()}
    for name, file in open_weights(path).items():
        if name not in pruned and name.endswith(_PARAMETERS) and (where := not_finite(file, name)):
            found.append(f"{name}: {where}")
    return found


def not_finite(file: TensorFile, name: str) -> str | None:
    """Describe the first weight of a tensor that is NaN or infinite; None where there is none, or the type is no float."""
    exponent = _EXPONENTS.get(file.dtype(name))
    if exponent is None:
        return None
    bits, shape = file[name].reshape(-1), file.shape(name)
    for start in range(0, bits.size, _AT_ONCE):
        part = bits[start : start + _AT_ONCE] & bits.dtype.type(exponent)
        if (places := np.flatnonzero(part == exponent)).size:
            first = start + int(places[0])
            mantissa = int(bits[first]) & (exponent & -exponent) - 1
            place = ", ".join(str(int(index)) for index in np.unravel_index(first, shape))
            return f"the weight at [{place}] is {'NaN' if mantissa else 'infinite'}"
    return None


def verify_artifact(artifact: Artifact) -> list[LayerReport]:
    """Return a report for every layer in the manifest, in its order.

    Raises:
        InputError: the weights or masks cannot be read, or a layer is missing in them.
    """
    if not (artifact.root / MASKS).is_file():
        raise InputError(f"{artifact.root / MASKS} is missing: create the artifact again")
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
        raise InputError(f"{root} has no weight or no mask called {layer.tensor}, which is in the manifest")
    bits_OI = weights[layer.tensor][layer.tensor]
    if bits_OI.ndim != 2:
        raise InputError(f"{root}: {layer.tensor} is not a matrix")
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
        violation=_violation(bits_OI, keep_OI, layer.sparsity) or not_finite(weights[layer.tensor], layer.tensor),
    )


def _violation(bits_OI: Bits, keep_OI: NDArray[np.bool_], pattern: SparsityPattern) -> str | None:
    if not pattern.divides(bits_OI.shape[1]):
        return f"{bits_OI.shape[1]} columns cannot be divided into groups of {pattern.m}"
    broken = pattern.violations(bits_OI == 0)
    if broken.any():
        return describe_group(bits_OI, broken, pattern)
    if pattern.violations(~keep_OI).any():
        row, group = np.argwhere(pattern.violations(~keep_OI))[0]
        return f"its mask keeps too many weights in row {row}, group {group}"
    strays = (bits_OI != 0) & ~keep_OI
    if strays.any():
        row, column = np.argwhere(strays)[0]
        return f"row {row}, column {column} is not +0.0, but pruned in its mask"
    return None


def describe_group(bits_OI: Bits, broken: NDArray[np.bool_], pattern: SparsityPattern) -> str:
    """Describe the first broken group: where it is and how many weights it has."""
    row, group = (int(index) for index in np.argwhere(broken)[0])
    if pattern.m is None:
        zeros = int((bits_OI[row] == 0).sum())
        return f"row {row} has {zeros} zeros of {pattern.zeros(bits_OI.shape[1])}"
    columns = slice(group * pattern.m, (group + 1) * pattern.m)
    count = int(np.count_nonzero(bits_OI[row, columns]))
    return f"row {row}, columns {columns.start}-{columns.stop - 1} hold {count} non-zero weights, {pattern.n} allowed"
