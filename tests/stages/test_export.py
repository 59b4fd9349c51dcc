"""export adds a folder to an artifact, or leaves the artifact as it was."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import pico
from tests.artifacts import DEPLOYABLE, dense, exported, pruned
from tests.runtime.kernels.material import needs_library
from vlmc.exporters import BACKENDS
from vlmc.exporters.base import Options
from vlmc.exporters.onnx.report import tables
from vlmc.runtime import Artifact, InputError, load
from vlmc.runtime.artifact.writing import update_manifest
from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.kernels.speed import Fastest
from vlmc.runtime.sessions import OnnxSession
from vlmc.toolchain.deploy import agreement
from vlmc.toolchain.deploy.agreement import Exported
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings, RoundingSettings
from vlmc.toolchain.stages import export as stage
from vlmc.toolchain.stages.export import Export

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


@pytest.mark.slow
def test_bf16_is_not_said_to_agree(tmp_path: Path) -> None:
    made = pruned(dense("llava", tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(precision="bf16"), "onnx", QUIET).run(made)
    assert "agreement" not in report
    assert all(graph["max_error"] is None and "not compared" in graph["note"] for graph in report["graphs"])
    with pytest.raises(InputError, match=r"cannot be run: .* export it as fp32 or fp16"):
        load(made.root)


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")


@pytest.mark.parametrize("family", DEPLOYABLE)
def test_graphs_stand_in_the_manifest_and_the_model_is_untouched(
    family: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with_graphs = Artifact.open(exported(family, tmp_path_factory.getbasetemp()))
    with_graphs.verify_files()
    added = {path for path in with_graphs.manifest.files if path.startswith("onnx/")}
    encoder = ["encoder_model"] if family.endswith("-t5") else []
    graphs = ("vision_encoder", "embed_tokens", *encoder, "decoder_model_merged")
    assert added == {"onnx/export.json", "onnx/deployment.json", *(f"onnx/{graph}.onnx" for graph in graphs)}
    plain = pruned(dense(family, tmp_path / "dense"), tmp_path / "artifact")
    assert with_graphs.digest == plain.digest


@pytest.mark.parametrize("family", DEPLOYABLE)
def test_transformers_loads_the_artifact_as_it_is(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = SavedModel.find(str(exported(family, tmp_path_factory.getbasetemp())))
    assert {type(saved.load()).__name__} == {saved.config["architectures"][0]}


def test_adapter_must_be_merged_first(made: Artifact) -> None:
    update_manifest(made, made.manifest.model_copy(update={"state": "adapted"}))
    with pytest.raises(
        InputError,
        match=r"adapter is not merged: export a pruned artifact or a merged artifact, as 'vlmc merge .*' writes it",
    ):
        Export(ExportSettings(), "onnx", QUIET).run(Artifact.open(made.root))


def test_unknown_backend_and_gpu_are_told_and_leave_nothing(made: Artifact) -> None:
    before = {path.name for path in made.root.iterdir()}
    with pytest.raises(InputError, match="unknown backend 'coreml'"):
        Export(ExportSettings(), "coreml", QUIET).run(made)
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(InputError, match="'gtx' is not a GPU architecture"):
        Export(ExportSettings(gpu="gtx"), "tensorrt", QUIET).run(made)
    assert {path.name for path in made.root.iterdir()} == before
    assert Artifact.open(made.root).manifest == made.manifest


def compare(folder: Path, graphs: Path) -> dict[str, Any]:
    saved = SavedModel.find(str(folder))
    exported = Exported(Deployment.read(graphs / DEPLOYMENT), graphs, ".onnx", OnnxSession)
    return agreement.compare_answers(saved.load(), saved, exported, probes(2), 1e-4)


def test_graphs_of_another_model_are_found_out(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = exported("llava", tmp_path_factory.getbasetemp())
    assert compare(folder, folder / "onnx")["questions"] == 2
    other = pruned(dense("llava", tmp_path / "dense", seed=1), tmp_path / "artifact")
    with pytest.raises(CheckFailed, match=r"the exported graphs answer .* with tokens .*, the model with"):
        compare(other.root, folder / "onnx")


def test_answers_may_part_only_at_a_tie() -> None:
    sample = probes(1)[0]
    clear, tied = (np.array(logits, np.float32) for logits in ([0.0, 1.0, 5.0], [0.0, 4.9999, 5.0]))
    assert agreement._check_same(sample, [2, 0], [2, 0], [clear, clear], 1e-4) == 0
    assert agreement._check_same(sample, [2, 2], [2, 1], [clear, tied], 1e-4) == 1
    for expected, found in (([2, 2], [2, 1]), ([2], [2, 2]), ([2, 2], [2])):
        with pytest.raises(CheckFailed):
            agreement._check_same(sample, expected, found, [clear, clear], 1e-4)


@pytest.mark.slow
def test_exporting_again_replaces_the_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported("blip-2", tmp_path_factory.getbasetemp()), folder)
    first = json.loads((folder / "onnx/export.json").read_text())
    with load(folder) as model:
        expected = model.generate(pico.picture(0), pico.QUESTIONS[0]).tokens
    Export(ExportSettings(precision="fp16"), "onnx", QUIET).run(Artifact.open(folder))
    second = json.loads((folder / "onnx/export.json").read_text())
    assert (first["precision"], second["precision"]) == ("fp32", "fp16")
    assert all(a["bytes"] > b["bytes"] for a, b in zip(first["graphs"], second["graphs"], strict=True))
    with load(folder) as model:
        assert model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=4).tokens == expected[:4]


@pytest.mark.slow
@needs_library
def test_packed_weights_are_part_of_the_artifact_and_answer(made: Artifact) -> None:
    report = Export(ExportSettings(cpu_sparse="bf16"), "onnx", QUIET).run(made)
    packed = sum(graph["packed"] for graph in report["graphs"])
    assert packed + len(report["layers_in_no_graph"]) == len(made.manifest.layers)
    assert report["cpu_sparse"] == "bf16"
    opened = Artifact.open(made.root)
    opened.verify_files("onnx/")
    assert "onnx/decoder_model_merged.onnx.data" in opened.manifest.files
    assert report["agreement"]["tokens"] > 0


def test_type_is_chosen_by_measuring(made: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Fastest("fp16", {"bf16": 2.0, "fp16": 1.0}, 2)
    monkeypatch.setattr(stage, "fastest", lambda: measured)
    assert stage._options(BACKENDS["onnx"], ExportSettings(cpu_sparse="auto")) == (Options(cpu_sparse="fp16"), measured)
    with pytest.raises(InputError, match="--cpu-activations bf16 needs --cpu-sparse bf16, and auto may take another type"):
        stage._options(BACKENDS["onnx"], ExportSettings(cpu_sparse="auto", cpu_activations="bf16"))
    [table] = tables({"graphs": [], "cpu_sparse_measured": asdict(measured)})
    assert "--cpu-sparse auto took fp16: one row with 2 threads takes bf16 2.00 ms, fp16 1.00 ms" in table.notes[0]


def test_packed_weights_are_an_option_of_onnx_alone(made: Artifact) -> None:
    with pytest.raises(InputError, match="--cpu-sparse is not an option of tensorrt: leave it out"):
        Export(ExportSettings(cpu_sparse="bf16"), "tensorrt", QUIET).run(made)


@pytest.mark.parametrize(
    ("options", "rounding", "message"),
    [
        ({"cpu_sparse": "bf16"}, {"rounding": "gptq"}, "--rounding is for --cpu-sparse int8: no other type is rounded so"),
        ({}, {"group": 64}, "--group is for --cpu-sparse int8: no other type is rounded so"),
        ({"cpu_sparse": "int8"}, {"data": "x.jsonl"}, "--data is for --rounding gptq: rounding to nearest looks at no data"),
        ({"cpu_sparse": "int8"}, {"rounding": "gptq", "data": "no.jsonl"}, "no data set at no.jsonl"),
    ],
)
@needs_library
def test_options_of_rounding_that_mean_nothing_are_refused(
    made: Artifact, options: dict[str, Any], rounding: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Export(ExportSettings(**options), "onnx", QUIET, rounding=RoundingSettings(**rounding)).run(made)
    assert Artifact.open(made.root).manifest == made.manifest
    assert not any(path.name.startswith(".onnx") for path in made.root.iterdir())


@needs_library
def test_int8_is_rounded_on_calibration_data_and_zeros_stay(made: Artifact) -> None:
    rounding = RoundingSettings(rounding="gptq", group=32, calibration=4)
    report = Export(ExportSettings(cpu_sparse="int8"), "onnx", QUIET, rounding=rounding).run(made)
    layers = report["rounding"]["layers"]
    assert layers.keys() <= made.manifest.layers.keys()
    assert all(one["error"] <= one["nearest"] for one in layers.values())
    assert report["rounding"]["mean"]["error"] < report["rounding"]["mean"]["nearest"]
    assert sum(graph["compensated"] for graph in report["graphs"]) > 0
    assert all(layer["violation"] is None for graph in report["graphs"] for layer in graph["layers"])
    opened = Artifact.open(made.root)
    opened.verify_files("onnx/")
    assert not any("safetensors" in path for path in opened.manifest.files if path.startswith("onnx/"))
    assert opened.digest == made.digest
    notes = tables(report)[0].notes
    assert any("layers rounded by gptq on 4 samples: squared error of their outputs" in note for note in notes)
