"""Initializers are called after their modules, files are valid ONNX, and what cannot be compared is said."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.exporters.material import small
from vlmc.exporters.base import Options
from vlmc.exporters.onnx.exporter import check_graph, export
from vlmc.exporters.onnx.parity import NOT_RUN
from vlmc.exporters.skeleton import skeleton
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sessions import OnnxSession


@pytest.mark.integration
def test_weights_have_their_modules_names(traced: Path) -> None:
    names = [tensor.name for tensor in onnx.load(traced).graph.initializer]
    assert {"rows.weight", "rows.bias", "sequence.weight"} <= set(names)
    assert not [name for name in names if name.startswith("val_")]
    assert len(set(names)) == len(names)
    check_graph(traced)


def test_a_file_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["gone"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    with pytest.raises(CheckFailed, match=r"a\.onnx is not valid ONNX: "):
        check_graph(tmp_path / "a.onnx")


@pytest.mark.integration
def test_bf16_is_checked_but_not_run(tmp_path: Path) -> None:
    report = export(small(), tmp_path / "small.onnx", Options("bf16"))
    assert (report.max_error, report.note) == (None, NOT_RUN)
    assert [layer.violation for layer in report.layers] == [None, None]
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert types["rows.weight"] == types["sequence.weight"] == TensorProto.BFLOAT16
    with pytest.raises(
        InputError, match=r"small\.onnx cannot be run: .*bf16 has none on a CPU\): export it as fp32 or fp16"
    ):
        OnnxSession(tmp_path / "small.onnx")


def test_layers_that_overflow_stay_in_float32() -> None:
    spec = replace(small(), keep_fp32=frozenset({"rows"}))
    module = skeleton(spec, "fp16").module
    assert {name: tensor.dtype for name, tensor in module.state_dict().items()} == {
        "rows.weight": torch.float32,
        "rows.bias": torch.float32,
        "sequence.weight": torch.float16,
    }
    assert skeleton(spec, "bf16").module.get_parameter("rows.weight").dtype == torch.bfloat16
