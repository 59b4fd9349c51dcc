"""The folder `genai` of an artifact: all that onnxruntime-genai needs, and nothing of the artifact's other folders."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.exporters.base import Exporter, Options, Progress
from vlmc.runtime.artifact import Layer
from vlmc.runtime.errors import InputError
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.deploy.genai.configuring import PROCESSOR, genai_config, processor_config
from vlmc.toolchain.deploy.genai.graphs import DECODER, EMBEDDING, VISION, describe_graphs
from vlmc.toolchain.families import FAMILIES
from vlmc.toolchain.families.base import Family
from vlmc.toolchain.models.saved import SavedModel

CONFIG, REPORT = "genai_config.json", "export.json"
GRAPHS = (VISION, EMBEDDING, DECODER)
_TEXT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def kind_of(family: Family) -> str:
    """Return what onnxruntime-genai calls such models.

    Raises:
        InputError: it knows none, or cannot feed their graphs.
    """
    if family.genai is None:
        known = ", ".join(one.name for one in FAMILIES.values() if one.genai)
        raise InputError(f"--layout genai is for {known}: onnxruntime-genai cannot run a {family.name} model of vlmc's")
    return family.genai


def write(
    folder: Path,
    source: SavedModel,
    model: Any,
    layers: Mapping[str, Layer],
    exporter: Exporter,
    options: Options,
    progress: Progress,
) -> None:
    """Fill an empty folder with a model's graphs, checked like any others, their report and their configuration.

    Their weights are dense: onnxruntime-genai knows no packed ones.

    Raises:
        InputError: onnxruntime-genai cannot run such a model, or its image processor lacks a setting.
        CheckFailed: a graph differs from the model or lacks the promised sparsity.
    """
    kind, config = kind_of(source.family), model.config
    deployed = deploy(source, model, layers, graphs=describe_graphs)
    _put(folder / REPORT, exporter.export(deployed.specs, folder, options.plain, progress))
    tokens = "input_ids" in deployed.specs[-1].inputs
    _put(folder / CONFIG, genai_config(kind, config, deployed.deployment, tokens=tokens))
    _put(folder / PROCESSOR, processor_config(source.load_processor().image_processor))
    for name in _TEXT:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)


def _put(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
