"""A graph counts as exported when it answers as torch does, in other sizes than the trace, and is as sparse."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.artifacts import DEPLOYABLE, exported
from tests.exporters.material import Small, small
from vlmc import exporters
from vlmc.exporters.base import Options, Precision
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx import exporter, tracing
from vlmc.exporters.onnx.exporter import export
from vlmc.exporters.onnx.parity import largest_error
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.exporters.onnx.tracing import trace
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.machine.progress import Task
from vlmc.toolchain.models.saved import SavedModel

pytestmark = pytest.mark.integration

SEEN = {
    "llava_next": ["feature_places"],
    "instructblip": ["qformer_input_ids", "qformer_attention_mask"],
    "instructblip-t5": ["qformer_input_ids", "qformer_attention_mask"],
    "qwen2_5_vl": ["patch_places", "patch_images", "patch_windows"],
    "qwen3_vl": ["patch_places", "patch_images", "patch_neighbours", "patch_shares"],
}
"""What vision encoders read beside pixels."""

BESIDE = {
    "paligemma": ["block_sequence_ids"],
    "gemma3": ["block_sequence_ids"],
    "qwen3_vl": ["deepstack_embeds"],
    "blip-2-t5": ["encoder_attention_mask"],
    "instructblip-t5": ["encoder_attention_mask"],
}
"""What decoders read beside the usual."""

CACHES = {"blip-2-t5": ("decoder.", "encoder."), "instructblip-t5": ("decoder.", "encoder.")}
DEPTHS = {"llava": 2, "gemma3": 3, "qwen3_vl": 2, "blip-2-t5": 3, "instructblip-t5": 3}


@pytest.fixture(params=DEPLOYABLE)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.open(exported(request.param, tmp_path_factory.getbasetemp()))


def test_graphs_have_the_names_that_others_know(artifact: Artifact) -> None:
    family = artifact.manifest.family
    decoder = onnx.load(artifact.root / "onnx/decoder_model_merged.onnx").graph
    inputs = [node.name for node in decoder.input]
    capped = SavedModel.find(str(artifact.root)).config["text_config"]["model_type"] == "gemma2"
    depth = DEPTHS.get(family, 1) + capped
    usual, past = inputs[: -2 * len(CACHES.get(family, ("",))) * depth], []
    for block in range(depth):
        past += [f"past_key_values.{block}.{c}{kind}" for c in CACHES.get(family, ("",)) for kind in ("key", "value")]
    write = [] if family in CACHES or capped else ["write_indices"]
    assert usual == ["inputs_embeds", "attention_mask", "position_ids", *BESIDE.get(family, []), *write]
    assert inputs[len(usual) :] == past
    grown = [name.replace("past_key_values", "present") for name in past if ".encoder." not in name]
    assert [node.name for node in decoder.output] == ["logits", *grown]
    vision = onnx.load(artifact.root / "onnx/vision_encoder.onnx").graph
    assert [node.name for node in vision.input] == ["pixel_values", *SEEN.get(family, [])]
    deep = ["deepstack_features"] if family == "qwen3_vl" else []
    assert [node.name for node in vision.output] == ["image_features", *deep]
    embed = onnx.load(artifact.root / "onnx/embed_tokens.onnx").graph
    assert [node.name for node in (*embed.input, *embed.output)] == ["input_ids", "inputs_embeds"]


def test_every_pruned_layer_that_runs_is_proven_sparse(artifact: Artifact) -> None:
    report = json.loads((artifact.root / "onnx/export.json").read_text())
    proven = [layer for graph in report["graphs"] for layer in graph["layers"]]
    assert len(proven) + len(report["layers_in_no_graph"]) == len(artifact.manifest.layers)
    assert all(layer["sparsity"] == 0.5 and layer["violation"] is None for layer in proven)
    on_disk = [layer for graph in report["graphs"] for layer in check_onnx(artifact.root / f"onnx/{graph['graph']}.onnx")]
    assert [vars(layer) for layer in on_disk] == proven


def test_only_what_llava_never_runs_is_left_out(artifact: Artifact) -> None:
    left_out = json.loads((artifact.root / "onnx/export.json").read_text())["layers_in_no_graph"]
    last = {"llava": ".encoder.layers.2.", "llava_next": "vision_tower.encoder.layers.0."}
    last_block = last.get(artifact.manifest.family, "none")
    assert left_out == sorted(name for name in artifact.manifest.layers if last_block in name)


def test_report_states_parity_and_agreement(artifact: Artifact) -> None:
    report = json.loads((artifact.root / "onnx/export.json").read_text())
    assert all(0 <= graph["max_error"] <= graph["tolerance"] == 1e-4 for graph in report["graphs"])
    questions = 4 if "blip" in artifact.manifest.family else 5  # they look at one image
    assert (report["agreement"]["questions"], report["agreement"]["answers_that_differ_at_a_tie"]) == (questions, 0)
    assert report["agreement"]["tokens"] > 31 * questions  # 32 each, but where LLaVA's 48 positions end before
    assert report["precision"] == "fp32"
    assert report["versions"]["onnxruntime"]


def test_files_tell_nothing_of_this_machine(artifact: Artifact) -> None:
    for path in (artifact.root / "onnx").iterdir():
        content = path.read_bytes()
        assert b"site-packages" not in content, path
        assert str(Path(__file__).parents[2]).encode() not in content, path


def test_cases_have_other_sizes_and_caches_empty_and_full(artifact: Artifact) -> None:
    saved = SavedModel.find(str(artifact.root))
    vision, *_, decoder = deploy(saved, saved.load(), artifact.manifest.layers).specs
    key = next(name for name in decoder.inputs if name.endswith(".key"))
    masks = [name for name in decoder.inputs if name.endswith("attention_mask")]
    sizes = {(case["inputs_embeds"].shape[:2], case[key].shape[2]) for case in decoder.cases}
    assert {past == 0 for _, past in sizes} == {True, False}
    lengths = {new for (_, new), _ in sizes}
    assert lengths == {1} if saved.family.encoder_decoder else lengths > {1}
    assert any((case[mask] == 0).any() for case in decoder.cases for mask in masks)
    assert len({len(case["pixel_values"]) for case in (vision.inputs, *vision.cases)}) > 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_small_module(tmp_path: Path, precision: Precision) -> None:
    report = export(small(), tmp_path / "small.onnx", Options(precision))
    assert 0 < report.max_error < {"fp32": 1e-5, "fp16": 5e-3}[precision]
    assert (report.cases, report.bytes) == (3, (tmp_path / "small.onnx").stat().st_size)
    model = onnx.load(tmp_path / "small.onnx")
    kind = {"fp32": onnx.TensorProto.FLOAT, "fp16": onnx.TensorProto.FLOAT16}[precision]
    assert {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2} == {kind}
    assert {"MatMul", "Gemm"} <= {node.op_type for node in model.graph.node}


class Angles(nn.Module):
    """Rotary positions: a frequency that is computed, and lost when it is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("frequency", torch.tensor([0.1234567]), persistent=False)

    def forward(self, position: Tensor) -> Tensor:
        return torch.cos(position.float() * self.get_buffer("frequency")).to(self.weight.dtype) * self.weight


def test_computed_buffers_keep_their_type_in_half_precision(tmp_path: Path) -> None:
    spec = GraphSpec("angles", Angles(), {"position": torch.arange(2000, 2004)}, ("angle",))
    assert export(spec, tmp_path / "angles.onnx", Options("fp16")).max_error < 1e-3


def test_equal_modules_give_equal_bytes(tmp_path: Path, traced: Path) -> None:
    trace(small(), tmp_path / "small.onnx", "fp32")
    assert (tmp_path / "small.onnx").read_bytes() == traced.read_bytes()


def test_large_weights_go_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EXTERNAL_ABOVE", 0)
    report = export(small(), tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx.data").stat().st_size >= 4096
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_graph_that_answers_otherwise_fails(traced: Path) -> None:
    spec = small()
    largest_error(spec, traced, Options())
    with torch.no_grad():
        spec.module.get_submodule("rows").get_parameter("bias").add_(0.01)
    with pytest.raises(CheckFailed, match=r"small\.onnx differs from torch by .* of the scale of y, above the tolerance"):
        largest_error(spec, traced, Options())


def test_batch_that_the_trace_fixed_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"small\.onnx cannot be run on x \(5, 16\): .* Got: 5 Expected: 2"):
        export(small(axes={}), tmp_path / "small.onnx")


def test_dense_weight_under_a_promise_fails(tmp_path: Path) -> None:
    module = Small().eval()
    module.sequence.weight.data[5, 8:12] = 1.0
    with pytest.raises(CheckFailed, match=r"small\.onnx: sequence is not 2:4: row 5, columns 8-11 hold 4 non-zero weights"):
        export(small(module=module), tmp_path / "small.onnx")


def test_unknown_backend_is_told() -> None:
    with pytest.raises(InputError, match="unknown backend 'openvino': use one of onnx, tensorrt"):
        exporters.find("openvino")


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(EnvironmentLacks, match=r"onnxscript not installed: pip install 'vlmc\[onnx\]'"):
        exporters.find("onnx")


def test_exporter_tells_each_graph_that_is_done(tmp_path: Path, traced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "trace", lambda spec, path, precision: shutil.copyfile(traced, path))
    told: list[str] = []
    task = Task()
    monkeypatch.setattr(task, "advance", told.append)
    exporters.find("onnx").export([small()], tmp_path, Options(), task)
    assert told == ["small"]
