"""Anybody's ONNX file: patterns are guessed, and weights found wherever a graph puts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.exporters.material import TWO_FOUR, sparse_OI
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern

Stored = Mapping[str, NDArray[np.generic]]


def write(path: Path, nodes: Sequence[onnx.NodeProto], stored: Stored, rank: int = 2) -> Path:
    """Write a graph from x to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(one, name) for name, one in stored.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def product(weight: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node("Gemm" if attributes else "MatMul", ["x", weight], ["y"], **attributes)


def random_OI(rows: int = 6, columns: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


WEIGHT = sparse_OI()
ZERO_POINTS = np.full((2, 6), 3, np.uint8)
QUANTIZED = np.where(WEIGHT.T == 0, 3, 9).astype(np.uint8)
HIDDEN: dict[str, tuple[list[onnx.NodeProto], Stored]] = {
    "reshaped": (
        [helper.make_node("Reshape", ["w", "s"], ["r"]), product("r", transB=1)],
        {"w": WEIGHT.reshape(-1, 1), "s": np.array([6, 8])},
    ),
    "scaled": (
        [helper.make_node("Mul", ["w", "s"], ["r"]), product("r", transB=1)],
        {"w": WEIGHT, "s": np.arange(1, 7, dtype=np.float32)[:, None]},
    ),
    "cast, renamed and turned": (
        [
            helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["c"], ["i"]),
            helper.make_node("Transpose", ["i"], ["t"]),
            product("t"),
        ],
        {"w": WEIGHT.astype(np.float16)},
    ),
    "dequantised by blocks": (
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=4),
            product("d"),
        ],
        {"w": QUANTIZED, "s": np.ones((2, 6), np.float32), "z": ZERO_POINTS},
    ),
    "turned after zero points of its channels": (
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
            helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
            product("t"),
        ],
        {"w": QUANTIZED.T.copy(), "s": np.ones(6, np.float32), "z": np.full(6, 3, np.uint8)},
    ),
    "on the left": ([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": WEIGHT}),
    "turned convolution": ([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], {"w": WEIGHT.T[:, :, None, None].copy()}),
    "integers": (
        [helper.make_node("MatMulInteger", ["x8", "w", "", "z"], ["y"]), helper.make_node("Cast", ["x"], ["x8"], to=2)][
            ::-1
        ],
        {"w": QUANTIZED, "z": np.array(3, np.uint8)},
    ),
}


@pytest.mark.parametrize("form", HIDDEN)
def test_a_weight_is_followed_to_where_it_is_stored_or_computed(form: str, tmp_path: Path) -> None:
    nodes, stored = HIDDEN[form]
    [report] = check_onnx(write(tmp_path / "a.onnx", nodes, stored, 4 if "conv" in form else 2), TWO_FOUR)
    assert (report.rows, report.columns, report.sparsity, report.violation) == (6, 8, 0.5, None)


def test_a_weight_in_a_branch_is_found(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branches = [helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["b"])], name, [], [y]) for name in ("one", "two")]
    choose = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    path = write(tmp_path / "a.onnx", [choose], {"w": WEIGHT.T.copy(), "c": np.array(True)})
    [report] = check_onnx(path, TWO_FOUR)
    assert report.violation is None


def test_a_weight_that_two_nodes_share_is_checked_on_both_axes(tmp_path: Path) -> None:
    square = sparse_OI(8, 8)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], transB=1), helper.make_node("MatMul", ["h", "w"], ["y"])]
    along, across = check_onnx(write(tmp_path / "a.onnx", nodes, {"w": square}), TWO_FOUR)
    assert along.violation is None
    assert across.violation is not None


def test_products_of_activations_have_no_weight(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "x"], ["y"])], {})
    with pytest.raises(InputError, match="has no weights: nothing in it multiplies with a stored tensor"):
        check_onnx(path, TWO_FOUR)


def test_a_weight_that_cannot_be_computed_is_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Unheard", ["w"], ["r"], domain="other"), product("r")]
    with pytest.raises(InputError, match="the weight r is computed in a way that cannot be followed"):
        check_onnx(write(tmp_path / "a.onnx", nodes, {"w": WEIGHT}), TWO_FOUR)


def test_patterns_are_guessed_layer_by_layer(tmp_path: Path) -> None:
    broken = sparse_OI(8, 8)
    broken[2, :4] = 1
    eight = random_OI(8, 16)
    eight *= SparsityPattern.parse("4:8").mask(np.abs(eight))
    stored = {"a": sparse_OI(8, 8), "b": sparse_OI(8, 8), "c": broken, "d": random_OI(16, 8), "e": eight}
    names = ["x", *stored]
    nodes = [helper.make_node("Gemm", [names[at], names[at + 1]], [names[at + 1] + "y"], transB=1) for at in range(5)]
    for at, node in enumerate(nodes):
        node.input[0] = "x" if at == 0 else nodes[at - 1].output[0]
    nodes[-1].output[0] = "y"
    reports = {report.layer: report for report in check_onnx(write(tmp_path / "a.onnx", nodes, stored))}
    assert [reports[name].pattern for name in "abcde"] == [*["2:4, guessed"] * 3, "dense", "4:8, guessed"]
    assert [reports[name].violation is None for name in "abcde"] == [True, True, False, True, True]
    assert reports["c"].violation == "row 2, columns 0-3 hold 4 non-zero weights, 2 allowed"


def test_a_share_of_zeros_is_guessed_where_there_is_no_pattern(tmp_path: Path) -> None:
    weight = random_OI(4, 30)
    weight *= SparsityPattern.parse("60%").mask(np.abs(weight))
    [report] = check_onnx(write(tmp_path / "a.onnx", [product("w", transB=1)], {"w": weight}))
    assert (report.pattern, report.violation) == ("60%, guessed", None)


def test_a_dense_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [product("w", transB=1)], {"w": random_OI()})
    with pytest.raises(InputError, match="is dense, as far as vlmc can tell: give the pattern to check with --target"):
        check_onnx(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../outside.data"},
        {"location": "/etc/passwd"},
        {"location": "gone.data"},
        {"location": "link.data"},
        {"offset": "100000"},
        {"length": "1000000000000000"},
        {"length": "-5"},
        {"offset": "seven"},
    ],
)
def test_values_in_other_files_are_read_from_the_folder_alone_or_told_in_one_line(
    entries: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "a.onnx"
    path.parent.mkdir()
    large = sparse_OI(64, 64).T
    write(path, [product("weight")], {"weight": large})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    assert [report.violation for report in check_onnx(path, TWO_FOUR)] == [None]
    (tmp_path / "outside.data").write_bytes(large.tobytes())
    (path.parent / "link.data").symlink_to(tmp_path / "outside.data")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as raised:
        check_onnx(path, TWO_FOUR)
    assert "\n" not in str(raised.value)
    assert "weight cannot be read" in str(raised.value)
