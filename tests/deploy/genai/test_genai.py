"""`export --layout genai`: graphs that take what onnxruntime-genai gives, and, where it is installed, its own answers.

`VLMC_GENAI=FOLDER` is where `pip install --no-deps --target FOLDER onnxruntime-genai` put it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests import pico
from tests.artifacts import pruned, share_operators
from vlmc.runtime import Artifact, InputError, processing
from vlmc.runtime.deployment import Patches
from vlmc.runtime.processing import Request
from vlmc.runtime.processing.patches import patch_inputs
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.deploy.genai.configuring import processor_config
from vlmc.toolchain.deploy.genai.graphs import describe_graphs
from vlmc.toolchain.deploy.genai.modules import GridTower, MergedEmbedding
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

QUIET = Progress(quiet=True)
FAMILIES = ("qwen2_5_vl", "gemma3")
NEW = 12
INSTALLED = os.environ.get("VLMC_GENAI")
ASKING = Path(__file__).with_name("asking.py")


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    share_operators()
    folder = tmp_path_factory.mktemp(request.param)
    made = pruned(pico.save(request.param, folder / "dense"), folder / "artifact")
    Export(ExportSettings(layout="genai"), "onnx", QUIET).run(made)
    return Artifact.open(made.root)


class Told(torch.nn.Module):
    """Stands for a tower: returns what it is told of the patches."""

    def forward(self, pixels: torch.Tensor, *numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return numbers


@pytest.mark.parametrize("settings", [{}, {"size": {}, "image_mean": [0.5], "image_std": [0.5], "rescale_factor": 1.0}])
def test_an_image_processor_without_its_settings_is_told(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^the model's image processor has no usable settings: KeyError"):
        processor_config(SimpleNamespace(to_dict=lambda: settings))


def test_patches_are_placed_as_the_runtime_places_them() -> None:
    layout = Patches(merge=2, window=2)
    grids = np.array([[1, 8, 6], [1, 4, 10], [2, 6, 4]])
    expected = patch_inputs(grids, layout)
    places, images, windows = GridTower(Told(), layout)(torch.zeros(int(grids.prod(1).sum()), 3), torch.from_numpy(grids))
    assert places.tolist() == expected["patch_places"].tolist()
    for ours, theirs in ((images, expected["patch_images"]), (windows, expected["patch_windows"])):
        assert ((ours[:, None] == ours).numpy() == (theirs[:, None] == theirs)).all()


def test_features_take_the_places_of_image_tokens() -> None:
    table = torch.nn.Embedding(5, 3)
    module = MergedEmbedding(table, 9)
    features = torch.arange(9.0).reshape(3, 3)
    found = module(torch.tensor([[1, 9, 9], [9, 2, 3]]), features)
    assert torch.equal(found[0, 1:], features[:2])
    assert torch.equal(found[1, 0], features[2])
    assert torch.equal(found[1, 1:], table.weight[2:4])
    assert torch.equal(module(torch.tensor([[4]]), features[:0]), table.weight[4][None, None])


@pytest.mark.integration
def test_the_folder_is_whole_checked_and_listed(exported: Artifact) -> None:
    exported.verify_files("genai/")
    names = {path.name for path in (exported.root / "genai").iterdir()}
    assert {"vision.onnx", "embedding.onnx", "model.onnx", "genai_config.json", "vision_processor.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "export.json"} <= names
    graphs = json.loads((exported.root / "genai/export.json").read_text())["graphs"]
    assert all(graph["max_error"] < 1e-4 for graph in graphs)
    assert sum(len(graph["layers"]) for graph in graphs) == len(exported.manifest.layers)
    model = json.loads((exported.root / "genai/genai_config.json").read_text())["model"]
    assert model["type"] == SavedModel.find(str(exported.root)).family.name
    assert {model[part]["filename"] for part in ("vision", "embedding", "decoder")} <= names
    again = json.loads((exported.root / "onnx/export.json").read_text())
    assert len(again["graphs"]) == 3, "the graphs of vlmc's own runtime stay"


def test_another_family_is_refused_before_any_work(tmp_path: Path) -> None:
    made = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")
    with pytest.raises(InputError, match=r"^--layout genai is for qwen2_5_vl, gemma3: .* cannot run a llava model"):
        Export(ExportSettings(layout="genai"), "onnx", QUIET).run(made)
    assert not (made.root / "onnx").exists()
    assert not (made.root / "genai").exists()


def ask(*arguments: str) -> Any:
    environment = os.environ | {"PYTHONPATH": str(INSTALLED)}
    done = subprocess.run(
        [sys.executable, str(ASKING), *arguments], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(INSTALLED is None, reason="VLMC_GENAI names no folder with onnxruntime-genai")
def test_onnxruntime_genai_answers_as_transformers_does(exported: Artifact, tmp_path: Path) -> None:
    source = SavedModel.find(str(exported.root))
    model: Any = source.load()
    processor = source.load_processor()
    deployment = deploy(source, model, {}, graphs=describe_graphs).deployment
    process = processing.find(source.folder, deployment)
    for number, sample in enumerate(probes()):
        text = fill_prompt(deployment.prompt, sample.question, images=1)
        images = tuple(sample.load_images())
        ids_BS = process([Request(text, images)]).ids_BS
        nested = [list(images)] if source.family.own_processor.nested else list(images)
        made = processor(text=[text], images=nested, return_tensors="pt")
        assert made["input_ids"].tolist() == ids_BS.tolist()
        with torch.no_grad():
            expected = model.generate(**made, max_new_tokens=NEW, do_sample=False)[0, ids_BS.shape[1] :]
        shown = int((ids_BS == deployment.image_token_id).sum())
        arrays = {"ids": ids_BS, "num_image_tokens": np.array([shown]), "pixel_values": made["pixel_values"].numpy()}
        if "image_grid_thw" in made:
            arrays["image_grid_thw"] = made["image_grid_thw"].numpy()
        np.savez(tmp_path / f"{number}.npz", **arrays)
        found = ask("answer", str(exported.root / "genai"), str(tmp_path / f"{number}.npz"), str(NEW))
        ends = expected[-1:].tolist() if int(expected[-1]) in deployment.stop_ids else []
        assert [*found, *ends] == expected.tolist()  # the token that ends an answer is not told


@pytest.mark.slow
@pytest.mark.skipif(INSTALLED is None, reason="VLMC_GENAI names no folder with onnxruntime-genai")
def test_its_image_processor_gives_the_pixels_of_transformers(exported: Artifact, tmp_path: Path) -> None:
    """Of a picture without edges: on others its filters differ a little. Its tokenizer knows no word-level vocabulary."""
    special = ["<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    special += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(
        ["what is this"], trainers.BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    folder = tmp_path / "genai"
    folder.mkdir()
    for path in (exported.root / "genai").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    across, down = np.meshgrid(np.linspace(0, 255, 50), np.linspace(0, 255, 70))
    picture = Image.fromarray(np.stack([across, down, np.full_like(down, 60)], -1).astype(np.uint8))
    picture.save(tmp_path / "picture.png")
    mark = "<start_of_image>" if exported.root.parent.name.startswith("gemma3") else "<|vision_start|><|vision_end|>"
    ask("process", str(folder), str(tmp_path / "picture.png"), mark, str(tmp_path / "found.npy"))
    processor: Any = SavedModel.find(str(exported.root)).load_processor()
    expected = processor.image_processor(images=[picture], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy").reshape(expected.shape), expected, atol=1e-5)
