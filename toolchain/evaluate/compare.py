"""eval: accuracy of an artifact beside its dense twin, and beside other artifacts of the same model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.card import REPORT, card
from vlmc.toolchain.data.drawn import DRAWN, with_usual_data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import Accuracy, evaluate
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.repair.adapter_files import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.settings import EvalSettings


def measure(checkpoint: Checkpoint, samples: Sequence[Sample], progress: Progress, *, title: str) -> Accuracy:
    """Load a model and return its accuracy; an adapter that is not merged works where it sits."""
    model, artifact = checkpoint.load(), checkpoint.artifact
    if artifact is not None and artifact.manifest.state == "adapted":
        attach_saved(model, load_adapter(artifact.root / FOLDER), load_masks(artifact.root, artifact.manifest))
    encoder = Encoder(checkpoint.load_processor(), checkpoint.family, model)
    return evaluate(model, encoder, samples, progress, title=title)


def dense_twin(artifact: Artifact) -> Checkpoint:
    """Return the dense model that the artifact was made from.

    Raises:
        InputError: it is not where the artifact says, or is another model by now.
    """
    origin = artifact.manifest.origin
    twin = Checkpoint.find(origin.model)
    if twin.digest != origin.digest:
        raise InputError(f"{origin.model} is not the dense model that {artifact.root} was made from (digest differs)")
    return twin


def compare(model: str, beside: Sequence[str], options: EvalSettings, progress: Progress) -> dict[str, Any]:
    """Measure a model, its dense twin where it is an artifact, and others beside it, on the same questions.

    The result goes into the artifact as `reports/eval.json`, and its card shows it.

    Raises:
        InputError: a model or the data cannot be used, or two models would share a column's name.
    """
    main = Checkpoint.find(model)
    options = with_usual_data(options, main)
    samples = data.load(options, "test", options.count, check=True)
    columns = _columns(main, [Checkpoint.find(name) for name in beside])
    measured = {title: measure(one, samples, progress, title=title) for title, one in columns.items()}
    found = {
        "data": options.data,
        "split": options.split or ("test" if options.data in DRAWN else None),
        "count": len(samples),
        "models": {title: asdict(accuracy) for title, accuracy in measured.items()},
        "digests": {title: one.digest for title, one in columns.items()},
    }
    if main.artifact is not None:
        record(main.artifact, found)
    return found


def record(artifact: Artifact, found: dict[str, Any]) -> None:
    """Put an evaluation into the artifact and onto its card."""
    texts = {REPORT: json.dumps(found, indent=2) + "\n", "README.md": card(artifact.manifest, found)}
    put_texts(artifact, texts)


def _columns(main: Checkpoint, beside: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    artifacts = [one for one in (main, *beside) if one.artifact is not None]
    columns = {"dense": dense_twin(main.artifact)} if main.artifact is not None else {}
    for one in (*beside, main):
        title = one.folder.resolve().name if one in artifacts else one.name
        if title in columns:
            raise InputError(f"two models would both be called {title}: rename one folder")
        columns[title] = one
    return columns
