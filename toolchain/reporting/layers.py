"""The pruned layers of an artifact one by one: how sparse each is, and how far its weight is from the dense model's.

Shapes: O out features, I in features.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.runtime.json_text import read_json
from vlmc.runtime.tensors import TensorFile, open_weights
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.paths import LAYERS
from vlmc.toolchain.reporting.verification import verify_artifact

_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def measure_layers(artifact: Artifact, dense: SavedModel | None) -> dict[str, Any]:
    """Return each pruned layer's part, pattern, size, sparsity and `change`, and write them into `reports/layers.json`.

    `change` is |W - D| / |D|, by the Frobenius norm, for the layer's weight W and the dense model's D; None without that
    model. What the file holds of the same weights is not measured again.

    Raises:
        InputError: weights or masks cannot be read, or the artifact's folder cannot be written.
    """
    found = _stored(artifact)
    if found is None or (dense is not None and not found["dense"]):
        found = {"digest": artifact.digest, "dense": dense is not None, "layers": _measured(artifact, dense)}
        put_texts(artifact, {LAYERS: json.dumps(found, indent=2) + "\n"})
    return found


def _stored(artifact: Artifact) -> dict[str, Any] | None:
    if LAYERS not in artifact.manifest.files:
        return None
    try:
        found = dict(read_json(artifact.root / LAYERS))
        return found if found["digest"] == artifact.digest and "dense" in found else None
    except (OSError, ValueError, TypeError, LookupError):
        return None  # it is measured again


def _measured(artifact: Artifact, dense: SavedModel | None) -> dict[str, Any]:
    weights, was = open_weights(artifact.root), {} if dense is None else open_weights(dense.folder)
    found = {}
    for report in verify_artifact(artifact):
        tensor = artifact.manifest.layers[report.layer].tensor
        change = _change(weights[tensor], was[tensor], tensor) if tensor in was else None
        size = {"rows": report.rows, "columns": report.columns, "sparsity": round(report.sparsity, 6)}
        found[report.layer] = {"part": str(report.part), "pattern": report.pattern, **size, "change": change}
    return found


def _change(now: TensorFile, was: TensorFile, tensor: str) -> float | None:
    weight_OI, dense_OI = _values(now, tensor), _values(was, tensor)
    if weight_OI is None or dense_OI is None or weight_OI.shape != dense_OI.shape:
        return None
    norm = float(np.linalg.norm(dense_OI))
    change = float(np.linalg.norm(weight_OI - dense_OI)) / norm if norm else 0.0
    return round(change, 6) if np.isfinite(change) else None


def _values(file: TensorFile, tensor: str) -> NDArray[np.float32] | None:
    """Return a tensor as float32, None for a type that holds none of the usual floats."""
    bits, kind = file[tensor], file.dtype(tensor)
    if kind == "BF16":
        found: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
        return found
    return bits.view(_FLOATS[kind]).astype(np.float32) if kind in _FLOATS else None
