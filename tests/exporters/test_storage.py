"""2:4 weights stored as values and places: no bit is lost, every runtime can load them, and unpacking gives the old file."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.exporters.material import TWO_FOUR, small
from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.exporter import check_graph, export
from vlmc.exporters.onnx.kept import keep, spread
from vlmc.exporters.onnx.sparsity import check_onnx, label
from vlmc.exporters.onnx.storage import keep_packed, unpack_file
from vlmc.exporters.onnx.tracing import trace
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.machine.progress import Task


def clean(**changes: object) -> GraphSpec:
    """Describe the small module with +0.0 where it is pruned, as vlmc writes it."""
    spec = small(**changes)
    for name in ("rows", "sequence"):
        weight = spec.module.get_parameter(f"{name}.weight").data
        weight[weight == 0] = 0.0
    return spec


def stored(path: Path) -> dict[str, bytes]:
    return {one.name: numpy_helper.to_array(one).tobytes() for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("inputs", [4, 12, 16, 64])
def test_every_bit_comes_back(kind: type[np.floating], inputs: int) -> None:
    weight_IO = np.random.default_rng(inputs).standard_normal((inputs, 5)).astype(kind)
    weight_IO = np.where(TWO_FOUR.mask(np.abs(weight_IO.T)).T, weight_IO, kind(0))
    weight_IO[0, 0], weight_IO[1, 0] = -0.0, np.inf  # a kept zero has its sign
    weight_IO[2:4, 0] = 0.0
    weight_IO[:4, 1] = 0.0  # nothing is kept
    values, positions = keep(weight_IO)
    assert spread(values, positions).tobytes() == weight_IO.tobytes()
    assert values.nbytes == weight_IO.nbytes // 2
    assert positions.nbytes == -(-inputs // 8) * 5


def test_at_16_bits_it_is_nine_sixteenths() -> None:
    values, positions = keep(np.zeros((64, 7), np.float16))
    assert 16 * (values.nbytes + positions.nbytes) == 9 * 64 * 7 * 2


def test_what_is_not_2_4_is_refused() -> None:
    with pytest.raises(InputError, match=r"more than two values that are not \+0\.0"):
        keep(np.ones((4, 1), np.float32))
    with pytest.raises(InputError, match="6 in features cannot be divided"):
        keep(np.zeros((6, 1), np.float32))
    with pytest.raises(InputError, match="damaged: its values are not in pairs"):
        spread(np.zeros((3, 2, 1), np.float16), np.zeros((1, 1), np.uint8))
    with pytest.raises(InputError, match="positions for values"):
        spread(np.zeros((2, 2, 1), np.float16), np.zeros((2, 1), np.uint8))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.integration
def test_file_is_smaller_and_unpacks_to_what_it_was(precision: str, tmp_path: Path) -> None:
    spec, path, back = clean(), tmp_path / "small.onnx", tmp_path / "back.onnx"
    trace(spec, path, precision)  # type: ignore[arg-type]
    before = stored(path)
    found = keep_packed(path, spec.sparse)
    label(path, spec.sparse)
    assert found.weights == 2
    assert found.packed_bytes / found.dense_bytes == (17 / 32 if precision == "fp32" else 9 / 16)
    check_graph(path)
    assert "rows.weight" not in stored(path)
    for reports in (check_onnx(path), check_onnx(path, TWO_FOUR)):
        assert [(one.layer, one.columns, one.violation) for one in reports] == [("rows", 16, None), ("sequence", 32, None)]
    assert unpack_file(path, back) == 2
    assert stored(back) == before
    check_graph(back)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.integration
def test_any_onnx_runtime_unpacks_on_load_and_computes_the_same(precision: str, tmp_path: Path) -> None:
    spec, path = clean(), tmp_path / "small.onnx"
    trace(spec, path, precision)  # type: ignore[arg-type]
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32 if precision == "fp32" else np.float16)
    [expected] = onnxruntime.InferenceSession(path).run(None, {"x": x})
    keep_packed(path, spec.sparse)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    [found] = onnxruntime.InferenceSession(path, options).run(None, {"x": x})
    assert np.array_equal(found, expected)
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not left & {"Unpack24", "BitShift", "BitwiseAnd", "Equal", "Where"}  # nothing is unpacked at each run


@pytest.mark.integration
def test_weight_with_a_changed_place_is_found(tmp_path: Path) -> None:
    spec, path = clean(), tmp_path / "small.onnx"
    report = export(spec, path, Options(packed=True))
    assert report.stored is not None
    assert report.stored.weights == 2
    model = onnx.load(path)
    [values] = [one for one in model.graph.initializer if one.name == "rows.weight.values"]
    values.CopyFrom(numpy_helper.from_array(np.zeros((2, 4, 32), np.float32), values.name))
    onnx.save(model, path)
    assert [one.sparsity for one in check_onnx(path) if one.layer == "rows"] == [1.0]


@pytest.mark.integration
def test_negative_zeros_are_no_zeros(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"rows\.weight cannot be packed: .* not \+0\.0"):
        export(small(), tmp_path / "small.onnx", Options(packed=True))


@pytest.mark.integration
def test_options_that_contradict_it_are_refused(tmp_path: Path) -> None:
    exporter = exporters.find("onnx")
    with pytest.raises(InputError, match="--packed and --cpu-sparse do not go together"):
        exporter.check(Options(packed=True, cpu_sparse="bf16"))
    nothing = clean(sparse={"rows": SparsityPattern.parse("50%")})
    with pytest.raises(InputError, match="--packed: no layer is promised as 2:4"):
        exporter.export([nothing], tmp_path, Options(packed=True), Task())


def test_what_is_not_packed_is_not_unpacked(tmp_path: Path, traced: Path) -> None:
    with pytest.raises(InputError, match="has no packed weights"):
        unpack_file(traced, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
