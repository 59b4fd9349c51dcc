"""eval: the accuracy of an artifact beside its dense twin and beside other models."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vlmc.runtime.artifact import CARD, Artifact, put_texts
from vlmc.runtime.artifact.writing import changing, check_inside
from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin, data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.naming import named
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.accuracy import Accuracy, answer_all, score
from vlmc.toolchain.evaluate.examples import USUAL, differing, disagreeing
from vlmc.toolchain.evaluate.metrics import check_metric
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.origin import find_dense
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.reporting.card import card, is_marked, pruned_accuracy, refreshed
from vlmc.toolchain.reporting.paths import EVALUATION, EXAMPLES
from vlmc.toolchain.reporting.report import refresh
from vlmc.toolchain.settings import EvalSettings

DENSE = "dense"
"""The dense twin's column."""


def measure(
    saved: SavedModel,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    title: str,
    batch: int = 64,
    device: torch.device | None = None,
) -> Accuracy:
    """Load a model and return its accuracy, with its adapter if that is not merged yet."""
    return score(*answered(saved, samples, progress, title=title, batch=batch, device=device))


def answered(
    saved: SavedModel,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    title: str,
    batch: int = 64,
    device: torch.device | None = None,
) -> tuple[list[Sample], list[str]]:
    """Load a model and ask it everything; return the samples, without their images, and its answers."""
    model, artifact = saved.load(), saved.artifact
    if artifact is not None and artifact.manifest.state == "adapted":
        attach_saved(model, load_adapter(artifact.root / FOLDER), load_masks(artifact.root, artifact.manifest))
    encoder = Encoder(saved.load_processor(), saved.family, model)
    asked: list[Sample] = []
    answers = answer_all(model.to(device), encoder, samples, progress, title=title, batch=batch, asked=asked)
    return asked, answers


def compare(
    model: str,
    beside: Sequence[str],
    options: EvalSettings,
    progress: Progress,
    *,
    dense: str | None = None,
    download: bool = False,
    trust: bool = False,
) -> dict[str, Any]:
    """Measure a model, its dense twin if it is an artifact, and others beside it, on the same questions.

    The result is written into the artifact as `reports/eval.json` and onto its card. `dense` names the dense twin if it
    cannot be found; `download` lets the hub be asked for it; `trust`: the models' own code may be run.

    Raises:
        InputError: a model or the data cannot be used, or two models have the same name.
        EnvironmentLacks: the metric needs something that is not installed.
    """
    main, device = SavedModel.find(model, trust=trust), choose_device(options.device)
    check_metric(options.metric)
    options = builtin.with_usual_data(options, main.origin)
    samples = data.load(options, "test", options.count, check=True)
    if main.artifact is not None:
        check_inside(main.artifact.root, EVALUATION, EXAMPLES, CARD)
        with changing(main.artifact):  # the results can be written: say otherwise before any work
            pass
    twin = None if main.artifact is None else find_dense(main.artifact, dense, download=download, trust=trust)
    columns = _columns(main, [SavedModel.find(name, trust=trust) for name in beside], twin)
    for one in columns.values():
        one.load_processor()  # what cannot be used is told before any of them is measured
    answers = {
        title: answered(one, samples, progress, title=title, batch=options.batch, device=device)
        for title, one in columns.items()
    }
    before = pruned_accuracy(main.artifact.manifest) if main.artifact is not None else None
    found = {
        "data": named(options.data),
        "split": options.split or ("test" if options.data in builtin.data_sets() else None),
        "metric": options.metric,
        "count": len(samples),
        "models": {title: asdict(score(*pair, metric=options.metric)) for title, pair in answers.items()},
        "digests": {title: one.digest for title, one in columns.items()},
        **({"pruned": before} if before is not None else {}),
    }
    if main.artifact is not None:
        count = options.examples if options.examples is not None else USUAL if options.data in builtin.data_sets() else 0
        record(main.artifact, found, progress, _examples(samples, answers[DENSE][1], answers[main.title][1], count))
    return found


def record(artifact: Artifact, found: dict[str, Any], progress: Progress, examples: dict[str, Any] | None = None) -> None:
    """Write an evaluation, and examples of it, into the artifact, onto its card and its report; people's edits are kept."""
    with changing(artifact) as current:
        texts, path = {EVALUATION: json.dumps(found, indent=2) + "\n"}, current.root / CARD
        texts |= {} if examples is None else {EXAMPLES: json.dumps(examples, indent=2) + "\n"}
        text = _card(current, found)
        if text is None:
            progress.notice(f"{path} is left unchanged, since its results were edited: the new results are in {EVALUATION}")
        else:
            texts[CARD] = text
        put_texts(current, texts)
    refresh(artifact, progress)


def _examples(samples: Sequence[Sample], dense: Sequence[str], compressed: Sequence[str], count: int) -> dict[str, Any]:
    """Return what `reports/examples.json` holds: without examples it says only how many answers differ."""
    found = differing(samples, dense, compressed, count)
    return {"count": len(dense), "differing": disagreeing(dense, compressed), "examples": found}


def _card(artifact: Artifact, found: dict[str, Any]) -> str | None:
    """Return the card with an evaluation on it; None if it must be left unchanged."""
    path = artifact.root / CARD
    if not path.is_file() or (artifact.card_note is None and not is_marked(_read(path))):  # none, or an older vlmc's
        return card(artifact.manifest, found)
    return refreshed(_read(path), artifact.manifest, found)


def _read(path: Path) -> str:
    """Return the text with its line ends unchanged, or an empty one if it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _columns(main: SavedModel, beside: Sequence[SavedModel], dense: SavedModel | None) -> dict[str, SavedModel]:
    columns = {} if dense is None else {DENSE: dense}
    for one in (*beside, main):
        if one.title in columns:
            raise InputError(f"two models are called {one.title}: rename one of the folders")
        columns[one.title] = one
    return columns
