"""export: write graphs or engines into an artifact, after they have given the same answers as the model itself.

Shapes: V vocabulary.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx.parity import TOLERANCE
from vlmc.runtime.artifact import Artifact, Serving, extend
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.model import Model
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo.dataset import samples
from vlmc.toolchain.demo.questions import CAPTION
from vlmc.toolchain.families import exported_names
from vlmc.toolchain.families.graphs import reached
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.versions import version_of, versions

QUESTIONS = 4
"""Questions that the exported graphs are asked before they count as done; one more picture is to be described."""

TOKENS = 16
"""Longest answer to them."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


def export(artifact: Artifact, settings: ExportSettings, backend: str, progress: Progress) -> dict[str, Any]:
    """Add the backend's folder to the artifact and return its report, which lies there as JSON too.

    Raises:
        InputError: the backend or an option is not known, the artifact has an adapter that is not merged yet, or vlmc
            cannot export such a model.
        CheckFailed: a graph differs from the model or lacks the promised sparsity; the artifact stays as it was.
        EnvironmentLacks: a package is missing.
    """
    exporter = exporters.find(backend)
    options = Options(settings.precision, tuple(settings.gpu.split(",")) if settings.gpu else ())
    exporter.check(options)
    artifact = Artifact.open(artifact.root)  # what was opened may be older than the last folder that was added
    if artifact.manifest.state == "adapted":
        raise InputError(f"{artifact.root} has an adapter that is not merged: run 'vlmc merge {artifact.root}' first")
    checkpoint = Checkpoint(str(artifact.root), artifact.root)
    serving = _serving(artifact)
    model = checkpoint.load()
    described = _describe(checkpoint, model, artifact, serving)
    with progress.task("export", total=len(described.specs) + 1) as task, extend(artifact, exporter.name) as folder:
        report = exporter.export(described.specs, folder, options, task.advance)
        report |= {"layers_in_no_graph": described.unreached}
        if backend == "onnx":
            tolerance = TOLERANCE[report["precision"]]
            report["agreement"] = compare_answers(model, checkpoint, serving, folder, tolerance)
        report["versions"] = versions() | {name: found for name in _PACKAGES if (found := version_of(name))}
        (folder / exporter.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        task.advance("compared with torch")
    return report


def _serving(artifact: Artifact) -> Serving:
    if artifact.manifest.serving is None:
        raise InputError(
            f"vlmc cannot export a {artifact.manifest.family} model yet: it exports {' and '.join(exported_names())}; "
            f"transformers loads {artifact.root} as any other model"
        )
    return artifact.manifest.serving


@dataclass(frozen=True)
class _Described:
    """Graph descriptions with their promises, and the pruned layers that no graph runs."""

    specs: list[GraphSpec]
    unreached: list[str]


def _describe(checkpoint: Checkpoint, model: nn.Module, artifact: Artifact, serving: Serving) -> _Described:
    layers = artifact.manifest.layers
    unreached = set(layers)
    specs = []
    for spec in checkpoint.family.graphs(model, serving):
        names = reached(spec, model, layers)
        unreached -= set(names.values())
        promised = {inside: layers[name].sparsity for inside, name in names.items()}
        specs.append(dataclasses.replace(spec, sparse=promised))
    return _Described(specs, sorted(unreached))


def compare_answers(
    model: nn.Module, checkpoint: Checkpoint, serving: Serving, graphs: Path, tolerance: float
) -> dict[str, Any]:
    """Ask the graphs and the model the same questions about pictures; return how many, and how many tokens agree.

    Greedy decoding turns a tie that rounding breaks into another answer, so a token may differ where the model's own
    logits for both are within `tolerance` of the largest.

    Raises:
        CheckFailed: a token differs elsewhere.
    """
    encoder = Encoder(checkpoint.load_processor(), checkpoint.family, model)
    asked = [*samples("test", QUESTIONS), *samples("test", 1, kinds=[CAPTION])]
    tokens = ties = 0
    with Model.from_graphs(checkpoint.folder, serving, graphs) as exported:
        for sample in asked:
            expected, logits = greedy(model, encoder, sample)
            found = exported.generate(sample.load_image(), sample.question, max_new_tokens=TOKENS).tokens
            tokens += len(expected)
            ties += _check_same(sample, expected, list(found), logits, tolerance)
    return {"questions": len(asked), "tokens": tokens, "answers_that_differ_at_a_tie": ties}


def greedy(
    model: nn.Module, encoder: Encoder, sample: Sample, limit: int = TOKENS
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Return transformers' own greedy answer as token ids, and the logits (V) that each was chosen from."""
    asked = encoder.question(sample)
    room = encoder.room(asked)
    with torch.no_grad():
        output = model.generate(  # type: ignore[operator]
            **asked,
            do_sample=False,
            num_beams=1,
            max_new_tokens=limit if room is None else min(limit, room),
            eos_token_id=list(encoder.end_ids),
            pad_token_id=encoder.end_ids[0],
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits = [step[0].float().numpy() for step in output.logits]
    return output.sequences[0].tolist()[-len(logits) :], logits


def _check_same(
    sample: Sample, expected: list[int], found: list[int], logits: list[NDArray[np.float32]], tolerance: float
) -> int:
    """Return 0 for equal answers, 1 for answers that part at a tie."""
    if expected == found:
        return 0
    pairs = enumerate(zip(expected, found, strict=False))
    step = next((index for index, (one, other) in pairs if one != other), None)
    if step is not None:
        gap = float(logits[step][expected[step]] - logits[step][found[step]])
        if gap <= 2 * tolerance * float(np.abs(logits[step]).max()):
            return 1
    raise CheckFailed(
        f"the exported graphs answer {sample.question!r} about {sample.id} with tokens {found}, the model with {expected}"
    )
