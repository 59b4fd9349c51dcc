"""The models that answer: the demo, and one with SmolLM2-135M's decoder, in random weights, behind the demo's eyes."""

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from vlmc.runtime import Model, load
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings, PruneSettings
from vlmc.toolchain.stages.export import Export
from vlmc.toolchain.stages.prune import Prune

DEMO, LONG, SMOL = "demo", "demo, long answers", "135 M"
"""The demo's own answers have two tokens or three; long ones go on after their end, as far as they may."""
SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
}
"""SmolLM2-135M's (https://huggingface.co/HuggingFaceTB/SmolLM2-135M), as its configuration says."""
_KEPT = {".json", ".jinja"}  # the demo's tokenizer, processor and template


def exported(name: str, folder: Path, blocks: int = 30) -> Path:
    """Return the artifact of a model with its ONNX graphs, which is made in `folder` unless it is there."""
    made = folder / ("135M" if name == SMOL else "demo")
    if not made.exists():
        dense = _smol(folder / "dense", blocks) if name == SMOL else SavedModel.find("demo").folder
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        options = PruneSettings(target="2:4", method="magnitude", calibration=1)
        artifact: Artifact = Prune(options).run(SavedModel.find(str(dense)), part)
        Export(ExportSettings(), "onnx", Progress(quiet=True)).run(artifact)
        part.rename(made)
    return made


def opened(name: str, folder: Path, threads: int) -> Model:
    """Load the graphs of an exported model, which keeps no features of images."""
    model = load(folder, threads=threads, verify=False, vision_bytes=0)
    if name != LONG:
        return model
    with model:
        endless = model.deployment.model_copy(update={"stop_ids": ()})
    return Model.from_graphs(folder, endless, folder / "onnx", threads=threads, vision_bytes=0)


def _smol(folder: Path, blocks: int) -> Path:
    from transformers import AutoConfig, AutoModelForImageTextToText

    demo = SavedModel.find("demo").folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in demo.iterdir():
        if path.suffix in _KEPT:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= SHAPE | {"num_hidden_layers": blocks, "tie_word_embeddings": True}
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    _widen(model)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def _widen(model: nn.Module) -> None:
    """Make the weights wide enough for answers to differ from image to image."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
