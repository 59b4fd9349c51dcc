"""Which patterns the weights of a file hold that does not say: each weight's own, or none.

Shapes: O out features, I in features.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError
from vlmc.runtime.reports import LayerReport, examine
from vlmc.runtime.sparsity import SparsityPattern

STRICTEST = tuple(SparsityPattern.parse(text) for text in ("1:4", "2:8", "2:4", "4:8", "8:16"))
DENSE = 0.2
"""A weight with a smaller share of zeros was not pruned; one with more that holds no pattern is broken."""
Zeros = NDArray[np.bool_]


def guess(path: Path, weights: Sequence[tuple[str, Zeros]]) -> list[LayerReport]:
    """Report each weight against the strictest N:M that it holds; `pattern` says that it is guessed, or `dense`.

    A weight with many zeros that holds none is compared with the pattern of most others. Where no weight holds N:M, the
    pattern is the share of zeros that the rows of every pruned one have.

    Raises:
        InputError: no weight is pruned.
    """
    pruned = {layer for layer, zero_OI in weights if zero_OI.size and zero_OI.mean() >= DENSE}
    own = {layer: _strictest(zero_OI) for layer, zero_OI in weights if layer in pruned}
    found = Counter(pattern for pattern in own.values() if pattern is not None)
    usual = found.most_common(1)[0][0] if found else _share([zero_OI for layer, zero_OI in weights if layer in pruned])
    if usual is None:
        raise InputError(f"{path} is dense, as far as vlmc can tell: give the pattern to check with --target, such as 2:4")
    reports = []
    for layer, zero_OI in weights:
        report = examine(layer, path.stem, own.get(layer) or usual, zero_OI)
        is_pruned = layer in pruned
        text = f"{report.pattern}, guessed" if is_pruned else "dense"
        reports.append(replace(report, pattern=text, violation=report.violation if is_pruned else None))
    return reports


def _strictest(zero_OI: Zeros) -> SparsityPattern | None:
    columns = zero_OI.shape[1]
    fits = (pattern for pattern in STRICTEST if pattern.divides(columns))
    return next((pattern for pattern in fits if not pattern.violations(zero_OI).any()), None)


def _share(zeros: Sequence[Zeros]) -> SparsityPattern | None:
    """Return the whole percentage of zeros that each row of all weights has; None: less than the least of a pruned one."""
    if not zeros:
        return None
    least = min(float(zero_OI.mean(1).min()) for zero_OI in zeros)
    return SparsityPattern(fraction=int(100 * least) / 100) if least >= DENSE else None
