"""Sessions take every type that numpy has, and say which they cannot take."""

import platform
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.runtime.kernels.native import library
from vlmc.runtime.sessions import PROVIDERS, OnnxSession
from vlmc.runtime.sessions.onnx import _check_used

NUMPY = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")


def identity(path: Path, kind: int, given: int | None = None) -> Path:
    """Write a graph that gives `x` out as `y`, cast from type `given` where that is another."""
    x, y = (helper.make_tensor_value_info(name, of, ["n"]) for name, of in (("x", given or kind), ("y", kind)))
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=kind)], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("name", NUMPY)
def test_types_of_numpy_go_in_and_come_out(name: str, tmp_path: Path) -> None:
    kind = np.dtype(name)
    path = identity(tmp_path / "a.onnx", helper.np_dtype_to_tensor_dtype(kind))
    with OnnxSession(path) as session:
        assert session.inputs == {"x": (kind, ("n",))}
        found = session.run({"x": np.array([0.0, 1.0, 3.0])})["y"]
    assert found.dtype == kind
    assert found.tolist() == np.array([0, 1, 3], kind).tolist()


@pytest.mark.skipif(library() is None or platform.machine() != "x86_64", reason="needs the kernels, and x86")
@pytest.mark.parametrize("threads", [1, 2])
def test_subnormal_numbers_are_zero_inside_of_a_session_alone(threads: int, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Sqrt", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "a.onnx")
    program = f"""
from pathlib import Path
import numpy as np
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.sessions import OnnxSession

small = np.full(1 << 20, 1e-40, np.float32)
def own():  # what this thread's own numbers do
    assert (small[:9] * np.float32(0.5) > 0).all()
own()
session = OnnxSession(Path({str(tmp_path / "a.onnx")!r}), threads={threads})
own()
assert not session.run({{"x": small}})["y"].any()
own()
try:
    session.run({{"x": small[None]}})
except CheckFailed:
    own()
    print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("name", ["x", "y"])
def test_bfloat16_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    others = {"x": (TensorProto.FLOAT, TensorProto.BFLOAT16), "y": (TensorProto.BFLOAT16, TensorProto.FLOAT)}
    path = identity(tmp_path / "a.onnx", *others[name])
    with pytest.raises(InputError, match=rf"a\.onnx: {name} is a tensor\(bfloat16\), .*: export it as fp32 or fp16$"):
        OnnxSession(path)


@pytest.mark.parametrize("name", ["input", "output", "length", "key"])
def test_names_that_are_not_utf8_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(one, TensorProto.FLOAT, ["length"]) for one in ("input", "output"))
    graph = helper.make_graph([helper.make_node("Abs", ["input"], ["output"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model.metadata_props.add(key="key", value="value")
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString().replace(name.encode(), b"\xe8" * len(name)))
    with pytest.raises(InputError, match=r"a\.onnx is damaged: a name in it is not UTF-8$"):
        OnnxSession(path)


def test_onnx_runtime_that_is_missing_or_broken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = identity(tmp_path / "a.onnx", TensorProto.FLOAT)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentLacks, match=r"not installed: pip install 'vlmc\[cpu\]', or 'vlmc\[gpu\]'"):
        OnnxSession(path)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(EnvironmentLacks, match=r"cannot be loaded \(.*\): pip uninstall -y onnxruntime"):
        OnnxSession(path)


class Assigned:
    """A session of ONNX Runtime whose parts went to these providers."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def get_provider_graph_assignment_info(self) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(ep_name=name) for name in self.names]


def test_a_provider_that_runs_nothing_is_told() -> None:
    cuda, cpu = PROVIDERS["cuda"], PROVIDERS["cpu"]
    with pytest.raises(EnvironmentLacks, match=r"CUDAExecutionProvider runs no part of a\.onnx, only CPUExecutionProvider"):
        _check_used(Path("a.onnx"), [cuda, cpu], Assigned(cpu))
    for asked, session in (([cuda], Assigned(cpu, cuda)), ([cpu], Assigned()), ([cuda], object())):
        _check_used(Path("a.onnx"), asked, session)


def test_providers_have_short_names(tmp_path: Path) -> None:
    path = identity(tmp_path / "a.onnx", TensorProto.FLOAT)
    for name in ("cpu", ["cpu"], "CPUExecutionProvider"):
        with OnnxSession(path, name) as session:
            assert session.run({"x": np.array([1.0])})["y"].tolist() == [1.0]
    with pytest.raises(EnvironmentLacks, match="ONNX Runtime has no TensorrtExecutionProvider here"):
        OnnxSession(path, ["tensorrt", "cpu"])


def test_outputs_go_where_they_are_wanted_and_into_an_input(tmp_path: Path) -> None:
    """The buffer that goes in is the one that comes out, with the row's new token in its column and all else untouched."""
    info = helper.make_tensor_value_info
    ends = [info("new", TensorProto.FLOAT, ["b", 1, 1, 2]), info("write", TensorProto.INT64, ["b"])]
    past, present = (info(name, TensorProto.FLOAT, ["b", 1, "t", 2]) for name in ("past", "present"))
    nodes = [
        helper.make_node("TensorScatter", ["past", "new", "write"], ["present"], axis=-2),
        helper.make_node("ReduceSum", ["present"], ["sum"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", [past, *ends], [present, info("sum", TensorProto.FLOAT, [])])
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), path)
    buffer = np.zeros((2, 1, 5, 2), np.float32)
    with OnnxSession(path) as session:
        bound = session.bound({"present": buffer})
        for column in range(2):
            feeds = {"past": buffer, "new": np.ones((2, 1, 1, 2)), "write": np.array([column, column + 3])}
            found = bound.run(feeds)
            assert found["present"] is buffer
            assert found["sum"] == 4 * (column + 1)
    assert buffer[:, 0, :, 0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_an_output_of_a_size_that_no_input_has_cannot_be_bound(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    node = helper.make_node("NonZero", ["x"], ["y"])
    graph = helper.make_graph(
        [node], "g", [info("x", TensorProto.FLOAT, ["n"])], [info("y", TensorProto.INT64, [1, "found"])]
    )
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with OnnxSession(path) as session, pytest.raises(InputError, match=r"a\.onnx: no input has the dimension found"):
        session.bound({})
