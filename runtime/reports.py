"""The result of checking a layer's sparsity; the same for safetensors files and for graphs.

Shapes: O out features, I in features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.sparsity import SparsityPattern


@dataclass(frozen=True)
class LayerReport:
    """One layer compared with its pattern.

    `rows` are output features and `columns` the weights along the reduction axis; `sparsity` is the fraction of zeros,
    `nonzero` the number of other weights; `violation` names the first place that breaks the pattern; None: it holds.
    """

    layer: str
    part: str
    pattern: str
    rows: int
    columns: int
    sparsity: float
    nonzero: int
    violation: str | None


def examine(layer: str, part: str, pattern: SparsityPattern, zero_OI: NDArray[np.bool_]) -> LayerReport:
    """Compare the map of a weight's zeros (O, I) with the pattern, all groups at once."""
    rows, columns = zero_OI.shape
    nonzero = int(zero_OI.size - np.count_nonzero(zero_OI))
    sparsity = 1 - nonzero / max(zero_OI.size, 1)
    violation = first_violation(pattern, zero_OI)
    return LayerReport(layer, part, str(pattern), rows, columns, sparsity, nonzero, violation)


def first_violation(pattern: SparsityPattern, zero_OI: NDArray[np.bool_]) -> str | None:
    """Say where the map of zeros (O, I) first breaks the pattern, and how; None where it holds."""
    columns = zero_OI.shape[1]
    if not pattern.divides(columns):
        return f"{columns} columns do not fall into groups of {pattern.m}"
    broken = pattern.violations(zero_OI)
    if not broken.any():
        return None
    row, group = (int(index) for index in np.unravel_index(np.argmax(broken), broken.shape))
    size = columns // broken.shape[1]
    kept = size - int(np.count_nonzero(zero_OI[row, group * size : (group + 1) * size]))
    place = f"row {row}, columns {group * size}-{(group + 1) * size - 1}"
    return f"{place} hold {kept} non-zero weights, {size - pattern.zeros(size)} allowed"
