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
        InputError: vlmc does not know the model, or its weights are damaged.
    """
    import torch

    from vlmc.toolchain.models.saved import SavedModel

    saved, weights = SavedModel(str(folder), folder), open_weights(folder)
    family = saved.family
    model = saved.stream(torch.device("cpu"))
    found = []
    for name, part in family.prunable(model.module).items():
        tensor = model.stored(f"{name}.weight")
        report = examine(name, part, pattern, weights[tensor][tensor] == 0)
        dense = report.violation is not None and report.sparsity < DENSE
        found.append(replace(report, violation=f"dense: {report.violation}") if dense else report)
    return found


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
        violation=_violation(bits_OI, keep_OI, layer.sparsity),
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
