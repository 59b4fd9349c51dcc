"""What TensorRT's VERBOSE log says about sparsity: which layers could run sparse, and which were chosen to.

8.x writes `(Sparsity) Layers eligible for sparse math: a, b` and `(Sparsity) TRT inference plan picked sparse
implementation for layers: a`; 10.x writes `(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b` and
`(Sparsity) Chose 1 layer(s) using sparse tactics: a`, once per pass over the tactics, so the last pair counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ELIGIBLE = re.compile(
    r"\(Sparsity\) (?:Layers eligible for sparse math|Found \d+ layer\(s\) eligible to use sparse tactics)(?::\s*(.*))?"
)
_CHOSEN = re.compile(
    r"\(Sparsity\) (?:TRT inference plan picked sparse implementation for layers|"
    r"Chose \d+ layer\(s\) using sparse tactics)(?::\s*(.*))?"
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
            eligible, chosen = _names(found[1]), None
        elif found := _CHOSEN.search(line):
            chosen = _names(found[1])
    return SparsityLog(eligible, chosen)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
