"""Which weights of an engine run sparse, and why the others do not, is read from the builder's log."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn

from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.exporters.onnx.tracing import trace
from vlmc.exporters.tensorrt.binding import Binding
from vlmc.exporters.tensorrt.exporter import EngineReport, require_sparse
from vlmc.exporters.tensorrt.inspecting import inspect, read_inspector
from vlmc.exporters.tensorrt.layers import SILENT, UNKNOWN, EngineLayers, LayerChoice, choices, read_layers
from vlmc.exporters.tensorrt.log import SparsityLog, parse
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.machine.tensorrt import show_trial, try_tensorrt
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import _options

TWO_FOUR = SparsityPattern.parse("2:4")
LOG_8 = [
    "Engine Layer Information:",
    "Layer(CaskConvolution): Conv_1 + Relu_2, Tactic: 0x4727434768e46395, x[Half(1,8)] -> y[Half(1,8)]",
    "Layer(MatrixMultiply): MatMul_3, Tactic: 1, y[Half(1,8)] -> z[Half(1,8)]",
]
"""In the form that logs of 8.x have in public reports (https://github.com/NVIDIA/TensorRT/issues/4056 and others)."""
LOG_RTX = [
    """Layers:
Name: __mye655_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: __myl_FcAddRelu_myl0_1, LayerType: runtime_fusion, Inputs: [ { Name: x, Dimensions: [-1,16], Format: (Linear) Row major linear format }], Constants: [ { Name: rows.weight_constantHalf_myl0, Dimensions: [16,32] }], Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: node_linear][ONNX Layer: node_relu]
Name: node_linear_1_myl0_3, LayerType: gemm, Inputs: [ { Name: expand.1_myl0, Dimensions: [-1,32] }], Constants: [], Outputs: [], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node_linear_1]
"""  # noqa: E501, W291
]
"""What TensorRT-RTX 1.7.1 wrote for the small module of these tests, some fields of its tensors left out."""

INSPECTED = """{"Layers": [{
  "Name": "Reformatting CopyNode for Input Tensor 0 to Conv_1 + Relu_2",
  "LayerType": "Reformat",
  "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [1,8], "Format/Datatype": "Row major linear FP32"}],
  "TacticValue": "0x00000000000003e8",
  "Metadata": ""
},{
  "Name": "Conv_1 + Relu_2",
  "LayerType": "CaskConvolution",
  "HasSparseWeights": 1,
  "TacticName": "sm80_xmma_fprop_sparse_conv_f16f16_f16f16_f16_nhwckrsc_nhwc",
  "TacticValue": "0x4727434768e46395"
},{
  "Name": "__myl_Fc_myl0_3",
  "LayerType": "gemm",
  "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16_tn",
  "Metadata": "[ONNX Layer: MatMul_3]\u001e[ONNX Layer: Add_4]"
},{
  "Name": "__myl_Cast_myl0_4",
  "LayerType": "shape_call",
  "TacticName": "",
  "Metadata": "[ONNX Layer: Cast_5]"
}],
"Bindings": ["x", "y"]
}"""
"""In the form that the inspector's JSON of detailed builds has in public reports (TensorRT issues 4020 and 4056)."""
NONE_PICKED = "(Sparsity) TRT inference plan picked sparse implementation for layers:"


def layered(*sizes: int, optimum: int = 512) -> GraphSpec:
    """Describe a chain of Linear layers of these widths, 2:4, on rows."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))).eval()
    for layer in module:
        weight = layer.weight.detach()
        layer.weight.data = torch.where(TWO_FOUR.mask(weight.abs()), weight, 0.0)
    axes = {"x": {0: Axis("rows", 1, optimum, 1024)}}
    sparse = {str(number): TWO_FOUR for number in range(len(module))}
    return GraphSpec("chain", module, {"x": torch.randn(2, sizes[0])}, ("y",), axes, sparse=sparse)


def chosen(
    spec: GraphSpec, folder: Path, log: str, engine: list[str] | None = None, *, known: bool = True
) -> list[LayerChoice]:
    """Return the choices for a traced graph; `{0}`, `{1}`, ... in the log are its products' names."""
    path = folder / "chain.onnx"
    trace(spec, path, "fp32")
    names = [node.name for node in onnx.load(path).graph.node]
    filled = [line.format(*names) for line in engine or []]
    read = parse(log.format(*names).splitlines())
    return choices(spec, path, check_onnx(path, TWO_FOUR), read, read_layers(filled), known=known)


def test_layers_of_both_forms_of_the_log_are_read() -> None:
    old, new = read_layers(LOG_8), read_layers(LOG_RTX)
    assert old.tactics == {"Conv_1": "0x4727434768e46395", "Relu_2": "0x4727434768e46395", "MatMul_3": "1"}
    assert old.of("Conv_1 + Relu_2") == ("Conv_1", "Relu_2")
    assert new.of("__myl_FcAddRelu_myl0_1") == ("node_linear", "node_relu")
    assert new.tactics == {"node_linear_1": "__myelin_CASK_STUB"}
    assert new.of("never listed") == ("never listed",)


def test_layers_of_the_inspector_are_read() -> None:
    found = read_inspector(INSPECTED)
    assert (
        found.tactics["Conv_1"] == found.tactics["Relu_2"] == "sm80_xmma_fprop_sparse_conv_f16f16_f16f16_f16_nhwckrsc_nhwc"
    )
    assert found.of("__myl_Fc_myl0_3") == ("MatMul_3", "Add_4")
    assert found.tactics["MatMul_3"] == found.tactics["Add_4"] == "sm80_xmma_gemm_f16f16_f16f16_f16_tn"
    assert "Cast_5" not in found.tactics
    both = read_layers(LOG_8) | found
    assert (both.tactics["MatMul_3"], both.tactics["Conv_1"]) == (found.tactics["MatMul_3"], found.tactics["Conv_1"])
    assert both.of("MatMul_3") == ("MatMul_3",)


@pytest.mark.parametrize("told", ["", "null", "[]", "{}", '{"Layers": 3}', '{"Layers": ["MatMul_3", 3, {}]}', "[" * 100_000])
def test_an_inspector_that_names_no_tactics_tells_nothing(told: str) -> None:
    assert read_inspector(told) == EngineLayers({}, {})


def test_the_inspector_opens_what_was_built_here() -> None:
    opened: list[bytes] = []

    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, engine: bytes) -> object:
            opened.append(engine)
            inspector = SimpleNamespace(get_engine_information=lambda form: {"json": INSPECTED}[form])
            return SimpleNamespace(create_engine_inspector=lambda: inspector) if engine else None

    trt = SimpleNamespace(Runtime=Runtime, LayerInformationFormat=SimpleNamespace(JSON="json"))
    assert inspect(Binding("tensorrt", trt), b"engine", None) == read_inspector(INSPECTED)
    assert inspect(Binding("tensorrt", trt), b"", None) == EngineLayers({}, {})
    assert inspect(Binding("tensorrt_rtx", trt), b"engine", None) == EngineLayers({}, {})
    assert opened == [b"engine", b""]


@pytest.mark.integration
def test_a_sparse_tactic_of_the_inspector_counts_as_chosen(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    spec = layered(512, 512)
    trace(spec, path, "fp32")
    [node] = [one.name for one in onnx.load(path).graph.node if one.op_type in ("MatMul", "Gemm")]
    tactics = {True: "sm80_xmma_gemm_sparse_f16", None: "sm80_xmma_gemm_f16"}
    for expected, tactic in tactics.items():
        told = json.dumps({"Layers": [{"Name": "fused", "TacticName": tactic, "Metadata": f"[ONNX Layer: {node}]"}]})
        read = parse([])
        [one] = choices(spec, path, check_onnx(path, TWO_FOUR), read, read_inspector(told), known=True)
        assert (one.chosen, one.tactic) == (expected, tactic)


def test_log_that_only_counts_names_nothing() -> None:
    log = "(Sparsity) Found 39 layer(s) eligible to use sparse tactics\n(Sparsity) Chose 0 layer(s) using sparse tactics"
    assert parse(log.splitlines()) == SparsityLog(None, ())
    assert parse(log.replace("Chose 0", "Chose 3").splitlines()) == SparsityLog(None, None)


@pytest.mark.integration
def test_chosen_layers_are_known_by_the_names_of_their_nodes(tmp_path: Path) -> None:
    log = (
        "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: {0} + Relu_9, fused\n"
        "(Sparsity) Chose 1 layer(s) using sparse tactics: fused"
    )
    engine = ["Name: fused, LayerType: gemm, Inputs: [], TacticName: sm80_spmma_h, StreamId: 0, Metadata: [ONNX Layer: {1}]"]
    first, second = chosen(layered(512, 512, 512), tmp_path, log, engine)
    assert (first.layer, first.rows, first.chosen, first.why) == ("0", 512, False, "lost the timing")
    assert (second.layer, second.tactic, second.chosen, second.why) == ("1", "sm80_spmma_h", True, None)


@pytest.mark.parametrize(
    ("sizes", "optimum", "why"),
    [
        ((512, 264), 512, "odd size: not multiples of 16"),
        ((512, 128), 512, "a dimension under 256"),
        ((512, 512), 1, "too few rows at OPT: 1"),
        ((512, 512), 512, "lost the timing"),
    ],
)
@pytest.mark.integration
def test_reasons(sizes: tuple[int, int], optimum: int, why: str, tmp_path: Path) -> None:
    log = "(Sparsity) Layers eligible for sparse math: {0}\n" + NONE_PICKED
    [one] = chosen(layered(*sizes, optimum=optimum), tmp_path, log)
    assert (one.eligible, one.chosen, one.why) == (True, False, why)
    assert (one.inputs, one.outputs) == sizes


@pytest.mark.integration
def test_what_the_log_does_not_say_is_not_known(tmp_path: Path) -> None:
    spec = layered(512, 512)
    spec.module[0].weight.data[0, :4] = 1.0  # type: ignore[index, union-attr, operator]
    [dense] = chosen(spec, tmp_path, "nothing about it")
    assert (dense.eligible, dense.chosen) == (False, None)
    assert str(dense.why).startswith("not 2:4: row 0, columns 0-3 hold 4")
    spec = layered(512, 512)
    assert [one.why for one in chosen(spec, tmp_path, "nothing about it")] == [SILENT]
    assert [one.why for one in chosen(spec, tmp_path, "nothing about it", known=False)] == [UNKNOWN]
    unlisted = "(Sparsity) Layers eligible for sparse math: other\n" + NONE_PICKED
    assert [one.why for one in chosen(spec, tmp_path, unlisted)] == ["TensorRT does not count it as eligible"]


def test_too_few_sparse_layers_fail() -> None:
    won = LayerChoice("a", 512, 512, 64, True, True, "t", None)
    lost = replace(won, layer="b", chosen=False, why="lost the timing")
    engine = EngineReport("g", "sm90", "g.sm90.engine", 1, 1.0, ["a", "b"], [], [], [], [won, lost], None)
    require_sparse([engine], 0.5)
    require_sparse([engine], None)
    require_sparse([replace(engine, layers=[replace(lost, eligible=False)])], 1.0)  # nothing was promised
    with pytest.raises(
        CheckFailed, match=r"g\.sm90\.engine: 1 of 2 2:4 layers run sparse, 90 % are required; 1 .*: lost the"
    ):
        require_sparse([engine], 0.9)


def test_share_is_a_percentage() -> None:
    backend = exporters.BACKENDS["tensorrt"]
    assert _options(backend, ExportSettings(require_sparse="90%"))[0].require_sparse == 0.9
    for wrong in ("90", "0%", "101%", "-1%", "nan%"):
        with pytest.raises(InputError, match="give a percentage above 0% and up to 100%"):
            _options(backend, ExportSettings(require_sparse=wrong))
    with pytest.raises(InputError, match="--require-sparse is not an option of onnx"):
        _options(exporters.BACKENDS["onnx"], ExportSettings(require_sparse="90%"))


def test_a_workspace_is_a_size() -> None:
    backend = exporters.BACKENDS["tensorrt"]
    assert _options(backend, ExportSettings(workspace=" 4GB "))[0].workspace == 4_000_000_000
    assert _options(backend, ExportSettings(workspace="512MiB"))[0].workspace == 512 << 20
    for wrong in ("lots", "", "0", "-1GB", "512", "nanGB", "9" * 30 + "GB"):
        with pytest.raises(InputError, match=r"--workspace .*: give a size of 1MiB or more, such as 4GB or 512MiB"):
            _options(backend, ExportSettings(workspace=wrong))
    with pytest.raises(InputError, match="--workspace is not an option of onnx: leave it out"):
        _options(exporters.BACKENDS["onnx"], ExportSettings(workspace="4GB"))


def test_tensorrt_rtx_cannot_promise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"^--require-sparse: TensorRT-RTX chooses kernels at run time"):
        exporters.find("tensorrt").check(Options("fp16", require_sparse=0.9))


@pytest.mark.integration
def test_doctor_builds_two_layers_and_says_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = try_tensorrt()
    [engine] = found["engines"]
    assert [(one["layer"], one["rows"], one["eligible"], one["chosen"], one["why"]) for one in engine["layers"]] == [
        ("0", 1024, True, None, UNKNOWN),
        ("2", 1024, True, None, UNKNOWN),
    ]
    show_trial(found)
    assert "tensorrt_rtx 1." in capsys.readouterr().out
