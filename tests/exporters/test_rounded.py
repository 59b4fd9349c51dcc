"""Weights that come in whole numbers: the graph holds exactly these, and zeros where the model has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.exporters.material import TWO_FOUR, small
from tests.runtime.kernels.material import needs_library
from vlmc.exporters.base import Options
from vlmc.exporters.onnx.exporter import export
from vlmc.exporters.onnx.packed import Packing, check_packed
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.exporters.onnx.weights import Weights
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.kernels.rounding import Rounded, round_to_nearest
from vlmc.runtime.sparsity import SparsityPattern

pytestmark = [pytest.mark.integration, needs_library]


def moved(weight_OI: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Rounded:
    """Return a weight in whole numbers, each one step nearer to zero than the nearest, as compensation may have it."""
    nearest = round_to_nearest(weight_OI, 32)
    return replace(nearest, whole_OI=(nearest.whole_OI - np.sign(nearest.whole_OI)).astype(np.int8))


def test_graph_holds_the_whole_numbers_that_it_was_given(tmp_path: Path) -> None:
    spec, path = small(), tmp_path / "small.onnx"
    layers = {layer: spec.module.get_parameter(f"{layer}.weight").detach().numpy() for layer in spec.sparse}
    spec = replace(spec, rounded={"rows": moved(layers["rows"])})
    report = export(spec, path, Options(cpu_sparse="int8", span=32))
    assert (report.packed, report.compensated) == (2, 1)
    weights = Weights(onnx.load(path))
    weight = weights.of_layer("rows")
    assert weight is not None
    np.testing.assert_array_equal(weights.array(weight.initializer), spec.rounded["rows"].weight_OI)
    assert [layer.violation for layer in check_onnx(path)] == [None, None]
    with pytest.raises(CheckFailed, match="the packed weight of rows is not the model's, rounded to int8"):
        check_packed(path, layers.items(), Packing("int8", rounded={"rows": round_to_nearest(layers["rows"], 32)}))


def test_a_zero_that_is_none_any_more_is_found(tmp_path: Path) -> None:
    spec, path = small(), tmp_path / "small.onnx"
    rows = spec.module.get_parameter("rows.weight").detach().numpy()
    other = np.where(rows == 0, rows[:, ::-1], 0).astype(np.float32)
    other *= TWO_FOUR.mask(np.abs(other))
    spec = replace(spec, rounded={"rows": round_to_nearest(other, 32)})
    with pytest.raises(CheckFailed, match=r"small\.onnx: the packed weight of rows is not zero where the model's is"):
        export(spec, path, Options(cpu_sparse="int8", span=32))


def test_pruned_without_groups_is_given_whole_numbers_too(tmp_path: Path) -> None:
    spec = small(sparse={"rows": TWO_FOUR, "sequence": SparsityPattern.parse("50%")})
    sequence = spec.module.get_parameter("sequence.weight").detach().numpy()
    report = export(
        replace(spec, rounded={"sequence": moved(sequence)}), tmp_path / "small.onnx", Options(cpu_sparse="int8", span=32)
    )
    assert (report.packed, report.dense, report.compensated) == (1, 1, 1)
    weights = Weights(onnx.load(tmp_path / "small.onnx"))
    weight = weights.of_layer("sequence")
    assert weight is not None
    np.testing.assert_array_equal(weights.array(weight.initializer), moved(sequence).weight_OI)
