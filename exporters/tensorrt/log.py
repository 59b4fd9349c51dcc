"""What TensorRT's VERBOSE log says about sparsity: which layers could run sparse, and which were chosen to.

8.x writes `(Sparsity) Layers eligible for sparse math: a, b` and `(Sparsity) TRT inference plan picked sparse
implementation for layers: a`; 10.x writes `(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b` and
`(Sparsity) Chose 1 layer(s) using sparse tactics: a`, once per pass over the tactics, so the last pair counts. Some builds
count the layers and leave out the names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ELIGIBLE = re.compile(
    r"\(Sparsity\) (?:Layers eligible for sparse math|Found (\d+) layer\(s\) eligible to use sparse tactics)(?::\s*(.*))?"
)
_CHOSEN = re.compile(
    r"\(Sparsity\) (?:TRT inference plan picked sparse implementation for layers|"
    r"Chose (\d+) layer\(s\) using sparse tactics)(?::\s*(.*))?"
)


@dataclass(frozen=True)
class SparsityLog:
    """TensorRT's own names of the layers; None: the log does not say, which is not the same as no layers."""

    eligible: tuple[str, ...] | None
    chosen: tuple[str, ...] | None


def parse(lines: Iterable[str]) -> SparsityLog:
    """Read the last eligible and the last chosen line."""
    eligible: tuple[str, ...] | None = None
    chosen: tuple[str, ...] | None = None
    for line in lines:
        if found := _ELIGIBLE.search(line):
            eligible, chosen = _names(found), None
        elif found := _CHOSEN.search(line):
            chosen = _names(found)
    return SparsityLog(eligible, chosen)


def _names(found: re.Match[str]) -> tuple[str, ...] | None:
    """Return the names of a line; None where it only counts them."""
    count, text = found.groups()
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    return None if int(count or 0) > len(names) else names
