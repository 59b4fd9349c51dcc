"""What a check of a layer's sparsity found; the same form for safetensors files and for graphs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """One layer held against its pattern.

    `rows` are output features and `columns` the weights along the reduction axis; `sparsity` is the fraction of zeros,
    `nonzero` the number of other weights; `violation` names the first place that breaks the pattern, None where it holds.
    """

    layer: str
    part: str
    pattern: str
    rows: int
    columns: int
    sparsity: float
    nonzero: int
    violation: str | None
