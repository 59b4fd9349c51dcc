"""The operator in ONNX Runtime: its answers, its threads, and graphs that do not fit."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.kernels.material import activations_RI, assert_exact, needs_library, sparse_OI
from vlmc.runtime.kernels import native
from vlmc.runtime.kernels.packing import Array, Packed, ValueType, pack

pytestmark = needs_library
FLOAT = TensorProto.FLOAT


def session(
    packed: Packed, inputs: int, bias_O: Array | None = None, threads: int = 2, level: int = 1, operator: str = "MatMul24"
) -> onnxruntime.InferenceSession:
    """Return a session of one node."""
    arrays = {"values": packed.values, "positions": packed.positions, "bias": bias_O, "scales": packed.scales}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items() if array is not None]
    if packed.type == "bf16":
        tensors[0].data_type = TensorProto.BFLOAT16
    used = {name: array for name, array in arrays.items() if name != "positions" or operator == "MatMul24"}
    names = ["x", *(name if array is not None else "" for name, array in used.items())]
    sizes = {"in_features": packed.inputs, "out_features": packed.outputs, "span": packed.span, "accuracy_level": level}
    node = helper.make_node(operator, names, ["y"], domain="vlmc", **sizes)
    x = helper.make_tensor_value_info("x", FLOAT, ["batch", "length", inputs])
    y = helper.make_tensor_value_info("y", FLOAT, ["batch", "length", packed.outputs])
    graph = helper.make_graph([node], "one", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("vlmc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(native.library()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16", "int8"])
@pytest.mark.parametrize("dense", [False, True])
def test_every_type_in_onnx_runtime(kind: ValueType, dense: bool) -> None:
    packed, bias = pack(sparse_OI(100, 324), kind, dense=dense, span=64), activations_RI(1, 100)[0]
    running = session(packed, 324, bias)
    for batch, length in [(1, 1), (2, 3), (3, 25)]:
        x = activations_RI(batch * length, 324)
        [y] = running.run(None, {"x": x.reshape(batch, length, 324)})
        assert y.shape == (batch, length, 100)
        assert_exact(y.reshape(-1, 100), x, packed, bias)
    assert running.run(None, {"x": np.zeros((0, 4, 324), np.float32)})[0].shape == (0, 4, 100)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16", "int8"])
def test_dense_weight_has_an_operator_without_positions(kind: ValueType) -> None:
    packed, bias = (
        pack(np.random.default_rng(0).standard_normal((100, 68), np.float32), kind, dense=True),
        activations_RI(1, 100)[0],
    )
    x = activations_RI(3, 68)
    for given in (bias, None):
        [y] = session(packed, 68, given, operator="MatMulDense").run(None, {"x": x[None]})
        assert_exact(y[0], x, packed, given)
    with pytest.raises(Exception, match="values do not fit in_features and out_features"):
        session(pack(sparse_OI(100, 68), kind), 68, bias, operator="MatMulDense").run(None, {"x": x[None]})


def test_bias_may_be_left_out_and_threads_change_nothing() -> None:
    packed, x = pack(sparse_OI(300, 64), "bf16"), activations_RI(40, 64)
    answers = [session(packed, 64, threads=threads).run(None, {"x": x[None]})[0] for threads in (1, 2, 3)]
    assert_exact(answers[0][0], x, packed)
    assert (answers[0] == answers[1]).all()
    assert (answers[0] == answers[2]).all()


def test_many_rows_are_rounded_only_where_the_graph_allows_it() -> None:
    packed, x = pack(sparse_OI(100, 64), "bf16"), activations_RI(20, 64)
    [[exact]], [[rounded]] = (session(packed, 64, level=level).run(None, {"x": x[None]}) for level in (1, 3))
    assert (exact == native.matmul(x, packed)).all()
    assert (rounded == native.matmul(x, packed, rounded="bf16")).all()


def test_activations_are_rounded_to_int8_only_where_the_graph_allows_it() -> None:
    for operator, dense in (("MatMul24", False), ("MatMulDense", True)):
        packed, x = pack(sparse_OI(100, 324), "int8", dense=dense), activations_RI(20, 324)
        sessions = (session(packed, 324, level=level, operator=operator) for level in (1, 4))
        [[exact]], [[rounded]] = (running.run(None, {"x": x[None]}) for running in sessions)
        assert (exact == native.matmul(x, packed)).all()
        assert (rounded == native.matmul(x, packed, rounded="int8")).all()


def test_graph_whose_sizes_do_not_fit_is_told_and_reads_nothing() -> None:
    packed, x = pack(sparse_OI(20, 64), "int8", span=64), activations_RI(1, 128)
    with pytest.raises(Exception, match="X must be float"):
        session(packed, 128).run(None, {"x": x[None]})
    with pytest.raises(Exception, match="values do not fit in_features and out_features"):
        session(replace(packed, inputs=128), 128).run(None, {"x": x[None]})
    with pytest.raises(Exception, match="scales do not fit in_features, out_features and span"):
        session(replace(packed, span=32), 64).run(None, {"x": x[None, :, :64]})
    with pytest.raises(Exception, match="bias must be float"):
        session(packed, 64, np.zeros(4, np.float32)).run(None, {"x": x[None, :, :64]})


def test_instruction_set_is_forced_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, x = pack(sparse_OI(20, 64), "bf16"), activations_RI(1, 64)
    monkeypatch.setenv("VLMC_CPU", "portable")
    [y] = session(packed, 64).run(None, {"x": x[None]})
    assert (y[0] == native.matmul(x, packed, None, "portable")).all()
    monkeypatch.setenv("VLMC_CPU", "mmx")
    with pytest.raises(Exception, match="VLMC_CPU names an instruction set that this CPU or this build lacks"):
        session(packed, 64)
