"""Packed weights in a graph: what is replaced, and that it computes the same with the kernels and without."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.exporters.material import TWO_FOUR, Small, small
from tests.runtime.kernels.material import needs_library
from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.onnx.exporter import export
from vlmc.exporters.onnx.packed import Packing, check_packed
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.exporters.onnx.weights import attribute
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.sessions import OnnxSession
from vlmc.runtime.sessions import onnx as onnx_sessions
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.machine.progress import Task

pytestmark = [pytest.mark.integration, needs_library]
TYPES: tuple[ValueType, ...] = ("fp32", "bf16", "fp16", "int8")


@pytest.mark.parametrize("kind", TYPES)
def test_small_module_is_packed_and_checked(kind: ValueType, tmp_path: Path) -> None:
    report = export(small(), tmp_path / "small.onnx", Options(cpu_sparse=kind))
    assert (report.packed, report.cpu_sparse) == (2, kind)
    assert report.max_error <= report.tolerance == 1e-4
    assert report.bf16_bytes == 2 * 2 * 16 * 32
    assert [(layer.rows, layer.columns, layer.sparsity, layer.violation) for layer in report.layers] == [
        (32, 16, 0.5, None),
        (16, 32, 0.5, None),
    ]
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model)
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("MatMul24") == 2
    assert not {"MatMul", "Gemm"}.intersection(operations)
    assert not any(tensor.name == "rows.weight" for tensor in model.graph.initializer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_graph_runs_in_a_stock_onnx_runtime(kind: ValueType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(small(), tmp_path / "small.onnx", Options(cpu_sparse=kind))
    x = {"x": np.random.default_rng(0).standard_normal((5, 16), np.float32)}
    with OnnxSession(tmp_path / "small.onnx") as session:
        ours = session.run(x)["y"]
    monkeypatch.setattr(onnx_sessions, "library", lambda: None)
    with pytest.warns(UserWarning, match=r"runs without its 2:4 kernels, several times slower: install a C\+\+ compiler"):
        stock = OnnxSession(tmp_path / "small.onnx")
    np.testing.assert_allclose(stock.run(x)["y"], ours, rtol=1e-4, atol=1e-5)


def test_the_kernels_run_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(small(), tmp_path / "small.onnx", Options(cpu_sparse="bf16"))
    monkeypatch.setenv("VLMC_CPU", "mmx")
    with pytest.raises(InputError, match="VLMC_CPU names an instruction set"):
        OnnxSession(tmp_path / "small.onnx")


def test_bias_that_is_added_goes_into_the_product(tmp_path: Path) -> None:
    module = Small().eval()
    module.sequence = torch.nn.Linear(32, 16)
    module.sequence.weight.data.mul_(TWO_FOUR.mask(module.sequence.weight.detach().abs()))
    export(small(module=module), tmp_path / "small.onnx", Options(cpu_sparse="fp32"))
    operations = [node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node]
    assert "Add" not in operations


def test_only_2_4_is_packed(tmp_path: Path) -> None:
    sparse = {"rows": TWO_FOUR, "sequence": SparsityPattern.parse("50%")}
    report = export(small(sparse=sparse), tmp_path / "small.onnx", Options(cpu_sparse="bf16"))
    assert (report.packed, report.dense) == (1, 1)
    operations = [node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node]
    assert (operations.count("MatMul24"), operations.count("MatMulDense")) == (1, 1)
    assert [(layer.layer, layer.violation) for layer in report.layers] == [("rows", None), ("sequence", None)]
    nothing = small(sparse={"sequence": SparsityPattern.parse("50%")})
    with pytest.raises(InputError, match="no layer is promised as 2:4"):
        exporters.find("onnx").export([nothing], tmp_path, Options(cpu_sparse="bf16"), Task())


@pytest.mark.parametrize(("kind", "level"), [("bf16", 3), ("int8", 4)])
def test_activations_are_rounded_only_with_weights_of_their_type(kind: Any, level: int, tmp_path: Path) -> None:
    report = export(small(), tmp_path / "small.onnx", Options(cpu_sparse=kind, cpu_activations=kind))
    assert report.packed == 2
    nodes = [node for node in onnx.load(tmp_path / "small.onnx").graph.node if node.op_type == "MatMul24"]
    assert [attribute(node, "accuracy_level", None) for node in nodes] == [level, level]
    with pytest.raises(InputError, match=f"--cpu-activations {kind} needs --cpu-sparse {kind}"):
        exporters.find("onnx").check(Options(cpu_sparse="fp16", cpu_activations=kind))


def test_half_precision_graph_is_refused() -> None:
    with pytest.raises(InputError, match="--cpu-sparse needs --precision fp32, not fp16"):
        exporters.find("onnx").check(Options("fp16", cpu_sparse="bf16"))


def test_packed_weights_stand_at_pages_of_a_file_of_their_own(tmp_path: Path) -> None:
    export(small(), tmp_path / "small.onnx", Options(cpu_sparse="fp32"))
    model = onnx.load(tmp_path / "small.onnx", load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
    assert {place["location"] for place in places} == {"small.onnx.data"}
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    assert {tensor.name for tensor in outside} >= {"rows.weight.values"}


def test_packed_weight_that_is_another_one_is_found(tmp_path: Path) -> None:
    spec, path = small(), tmp_path / "small.onnx"
    export(spec, path, Options(cpu_sparse="bf16"))
    layers = {layer: spec.module.get_parameter(f"{layer}.weight").detach().numpy() for layer in spec.sparse}
    check_packed(path, layers.items(), Packing("bf16"))
    other = layers["rows"].copy()
    other[other != 0] *= 1.02
    with pytest.raises(CheckFailed, match=r"small\.onnx: the packed weight of rows is not the model's, rounded to bf16"):
        check_packed(path, {**layers, "rows": other}.items(), Packing("bf16"))
    with pytest.raises(CheckFailed, match=r"small\.onnx: the weight of elsewhere is not packed"):
        check_packed(path, [("elsewhere", other)], Packing("bf16"))


def test_sparsity_of_packed_weights_is_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    export(small(), path, Options(cpu_sparse="int8"))
    assert [layer.violation for layer in check_onnx(path, TWO_FOUR)] == [None, None]
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("rows.weight.values"):
            emptied = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(emptied, tensor.name))
    onnx.save(model, path)
    [rows] = [layer for layer in check_onnx(path) if layer.layer == "rows"]
    assert rows.sparsity == 1.0


def test_packed_values_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    export(small(), path, Options(cpu_sparse="fp32"))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("rows.weight.values"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"rows\.weight\.values is float64, which no packed weight is"):
        check_onnx(path)
