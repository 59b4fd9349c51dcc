"""eval: accuracy of an artifact beside its dense twin, and beside other artifacts of the same model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vlmc.runtime.artifact import CARD, Artifact, put_texts
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.naming import named
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import Accuracy, evaluate
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.reporting.card import REPORT, card, is_marked, pruned_accuracy, refreshed
from vlmc.toolchain.settings import EvalSettings


def measure(
    checkpoint: SavedModel,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    title: str,
    batch: int = 64,
    device: torch.device | None = None,
) -> Accuracy:
    """Load a model and return its accuracy; an adapter that is not merged works where it sits."""
    model, artifact = checkpoint.load(), checkpoint.artifact
    if artifact is not None and artifact.manifest.state == "adapted":
        attach_saved(model, load_adapter(artifact.root / FOLDER), load_masks(artifact.root, artifact.manifest))
    encoder = Encoder(checkpoint.load_processor(), checkpoint.family, model)
    return evaluate(model.to(device), encoder, samples, progress, title=title, batch=batch)


def compare(
    model: str, beside: Sequence[str], options: EvalSettings, progress: Progress, *, dense: str | None = None
) -> dict[str, Any]:
    """Measure a model, its dense twin where it is an artifact, and others beside it, on the same questions.

    The result goes into the artifact as `reports/eval.json`, and its card shows it. `dense` names the dense twin where it
    is not found by itself.

    Raises:
        InputError: a model or the data cannot be used, or two models would share a column's name.
    """
    main, device = SavedModel.find(model), choose_device(options.device)
    samples = data.load(options, "test", options.count, check=True)
    columns = _columns(main, [SavedModel.find(name) for name in beside], dense)
    measured = {
        title: measure(one, samples, progress, title=title, batch=options.batch, device=device)
        for title, one in columns.items()
    }
    before = pruned_accuracy(main.artifact.manifest) if main.artifact is not None else None
    found = {
        "data": named(options.data),
        "split": options.split or ("test" if options.data == "demo" else None),
        "count": len(samples),
        "models": {title: asdict(accuracy) for title, accuracy in measured.items()},
        "digests": {title: one.digest for title, one in columns.items()},
        **({"pruned": before} if before is not None else {}),
    }
    if main.artifact is not None:
        record(main.artifact, found, progress)
    return found


def record(artifact: Artifact, found: dict[str, Any], progress: Progress) -> None:
    """Put an evaluation into the artifact and onto its card, of which what people wrote stays."""
    texts, path = {REPORT: json.dumps(found, indent=2) + "\n"}, artifact.root / CARD
    text = _card(artifact, found)
    if text is None:
        progress.notice(f"{path} is left as it is, for what vlmc wrote of measures was edited: they are in {REPORT}")
    else:
        texts[CARD] = text
    put_texts(artifact, texts)


def _card(artifact: Artifact, found: dict[str, Any]) -> str | None:
    """Return the card with an evaluation on it; None where it is to be left as it is."""
    path = artifact.root / CARD
    if not path.is_file() or (artifact.card_note is None and not is_marked(_read(path))):  # none, or an old vlmc's own
        return card(artifact.manifest, found)
    return refreshed(_read(path), artifact.manifest, found)


def _read(path: Path) -> str:
    """Return the text with its line ends as they are; nothing where it is no text."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _columns(main: SavedModel, beside: Sequence[SavedModel], dense: str | None) -> dict[str, SavedModel]:
    columns = {"dense": find_dense(main.artifact, dense)} if main.artifact is not None else {}
    for one in (*beside, main):
        if one.title in columns:
            raise InputError(f"two models would both be called {one.title}: rename one folder")
        columns[one.title] = one
    return columns
