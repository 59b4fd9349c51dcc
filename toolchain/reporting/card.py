"""The model card of an artifact: what was done, what was measured, how to run it. It follows from the manifest alone.

People edit it too. vlmc writes the whole card once, with the artifact; later it updates only the part between two marks, and
only if that part is unedited: the first mark holds its digest.
"""

import hashlib
import re
from typing import Any

from vlmc.runtime.artifact import Manifest, Step
from vlmc.toolchain.reporting.front_matter import fields, measured
from vlmc.toolchain.reporting.tables import asked, metric_of, percent, with_pruned

PRUNED = "pruned_accuracy"
"""The measure in repair's history that holds the accuracy of the pruned model before the repair."""

_END, _FRONT_END = "<!-- vlmc: end -->", "# vlmc: end"
_PART = re.compile(rf"<!-- vlmc: measured ([0-9a-f]{{16}}) [^>]*-->\s*\n(.*?)\n{_END}", re.DOTALL)
_FRONT = re.compile(rf"^# vlmc: measured ([0-9a-f]{{16}})[^\n]*\n(.*?)(?:^){_FRONT_END}", re.DOTALL | re.MULTILINE)
_NOTE = "(vlmc eval updates this part unless it was edited)"
_ON_TRANSFORMERS = (
    "In transformers (`.` is this folder, or its name on the hub):\n\n"
    "```python\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
    "model = AutoModelForImageTextToText.from_pretrained('.')\nprocessor = AutoProcessor.from_pretrained('.')\n```\n"
)
_ON_GRAPHS = (
    "In ONNX Runtime, without torch, once `vlmc export . --backend onnx` has written the graphs; "
    "`onnx/deployment.json` says how they are fed:\n\n```python\n"
    "from vlmc.runtime import load  # pip install 'vlmc[cpu]'\n\n"
    "with load('.') as model:\n    print(model.generate('image.png', 'what is shown?'))\n```\n"
)
_NO_GRAPHS = "vlmc cannot export this model yet.\n"
_ON_VLMC = "With vlmc:\n\n```\nvlmc verify-sparsity .\nvlmc eval .\n```\n"
_ALL_OF_VLMC = (
    "With vlmc:\n\n```\nvlmc verify-sparsity .\nvlmc eval .\nvlmc export . --backend onnx\n"
    "vlmc run . --image image.png --prompt 'what is shown?'\nvlmc serve .\n```\n"
)
_WAITS = (
    "An adapter in `adapter/` is not merged yet. transformers does not load it: it loads this folder as the pruned model, "
    "without the repair. "
)
_MERGE = (
    "`vlmc merge` puts it into the weights, which keep their zeros; peft does not know the masks, so it would load "
    "another model.\n\n```\nvlmc merge . --out ../merged\nvlmc eval ../merged\n```\n"
)
_PEFT = (
    "It must stay separate, since merging it would fill the pruned weights; peft loads it:\n\n"
    "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForImageTextToText\n\n"
    "pruned = AutoModelForImageTextToText.from_pretrained('.')\nmodel = PeftModel.from_pretrained(pruned, 'adapter')\n```\n"
)


def card(manifest: Manifest, evaluation: dict[str, Any] | None = None) -> str:
    """Return the text of README.md; `evaluation` is the content of `reports/eval.json`, if there is one."""
    loads = (
        "`transformers` loads this folder as the pruned model, without its adapter."
        if manifest.state == "adapted"
        else "`transformers` loads this folder as it is."
    )
    parts = [
        f"---\n{fields(manifest)}\n{_front_part(manifest, evaluation)}\n---\n",
        f"# {_plain(manifest.origin.model)}, {_patterns(manifest)}, {manifest.state}\n",
        f"Made by vlmc from `{_plain(manifest.origin.model)}` (SHA-256 `{manifest.origin.digest[:16]}...`). "
        f"{len(manifest.layers)} layers hold {_patterns(manifest)}; weights keep their dense layout with exact zeros, so "
        f"{loads}\n",
        "## What was done\n",
        "\n".join(_step(number, step) for number, step in enumerate(manifest.history, 1)) + "\n",
        "## What was measured\n",
        f"{_measured(manifest, evaluation)}\n",
        "## How to run it\n",
        _how_to_run(manifest),
        "## Limits\n",
        "\n".join(f"- {_plain(line)}" for line in _limits(manifest)) + "\n",
    ]
    return "\n".join(parts)


def refreshed(text: str, manifest: Manifest, evaluation: dict[str, Any]) -> str | None:
    """Return a card with its results updated and everything else unchanged.

    None if the results were edited or are missing: the card must be left unchanged.
    """
    found = _PART.search(text)
    if found is None or _digest(found[2]) != found[1]:
        return None
    text = text[: found.start()] + _measured(manifest, evaluation) + text[found.end() :]
    front = _FRONT.search(text)
    if front is None or _digest(front[2]) != front[1]:  # people wrote their own
        return text
    return text[: front.start()] + _front_part(manifest, evaluation) + text[front.end() :]


def is_marked(text: str) -> bool:
    """Whether a card has the mark of the part that vlmc updates."""
    return "<!-- vlmc: measured " in text


def pruned_accuracy(manifest: Manifest) -> dict[str, Any] | None:
    """Return repair's measurement of the pruned model (`overall`, `count`, `data`, `split`), or None."""
    told = [step.measures[PRUNED] for step in manifest.history if PRUNED in step.measures]
    return told[-1] if told else None


def _front_part(manifest: Manifest, evaluation: dict[str, Any] | None) -> str:
    """Return what was measured, as YAML between comments."""
    text = measured(manifest, evaluation) if evaluation else ""
    return f"# vlmc: measured {_digest(text)} {_NOTE}\n{text}{chr(10) if text else ''}{_FRONT_END}"


def _patterns(manifest: Manifest) -> str:
    return ", ".join(dict.fromkeys(layer.pattern for layer in manifest.layers.values()))


def _step(number: int, step: Step) -> str:
    options = ", ".join(f"{name} {value}" for name, value in step.config.items() if value is not None)
    measures = ", ".join(f"{name} {value}" for name, value in step.measures.items() if not isinstance(value, dict))
    told = f"{number}. **{step.stage}**: {options or 'no options'}" + (f". Measured: {measures}" if measures else "") + "."
    return _plain(told)


def _how_to_run(manifest: Manifest) -> str:
    if manifest.state == "adapted":
        return _WAITS + (_PEFT if manifest.history[-1].measures.get("kept_apart") else _MERGE)
    return "\n".join((_ON_TRANSFORMERS, *((_ON_GRAPHS, _ALL_OF_VLMC) if _exportable(manifest) else (_NO_GRAPHS, _ON_VLMC))))


def _limits(manifest: Manifest) -> list[str]:
    found = [
        "The zeros lie in the dense layout: transformers takes as much memory and time as for the dense model.",
        f"Whatever limits `{manifest.origin.model}` has, this model has too, and its licence applies.",
        "Only what stands above was measured; on other data it may have lost more: compare both models on yours.",
    ]
    data = dict.fromkeys(str(step.config["data"]) for step in manifest.history if step.config.get("data"))
    return [*found, *([f"It was calibrated and repaired on {', '.join(data)} alone."] if data else [])]


def _exportable(manifest: Manifest) -> bool:
    from vlmc.toolchain.families import exported_names  # it needs torch, which reading a card does not

    return manifest.family in exported_names()


def _measured(manifest: Manifest, evaluation: dict[str, Any] | None) -> str:
    """Return the results, between the marks."""
    before = pruned_accuracy(manifest)
    parts = [
        _accuracies(evaluation, before) if evaluation else "",
        f"Before the repair, right answers to {_plain(asked(before))}: {percent(before['overall'])}." if before else "",
        "" if evaluation else "`vlmc eval .` measures its accuracy beside its dense twin.",
    ]
    text = "\n\n".join(part for part in parts if part)
    return f"<!-- vlmc: measured {_digest(text)} {_NOTE} -->\n{text}\n{_END}"


def _digest(text: str) -> str:
    """Return a short digest of a part of the card, whatever its line ends."""
    return hashlib.sha256("\n".join(line.rstrip() for line in text.splitlines()).encode()).hexdigest()[:16]


def _accuracies(found: dict[str, Any], before: dict[str, Any] | None) -> str:
    models = found["models"]
    kinds = [*next(iter(models.values()))["by_kind"], "overall"]

    def cells(kind: str) -> list[str]:
        shares = (model["overall"] if kind == "overall" else model["by_kind"][kind] for model in models.values())
        return [percent(share) for share in shares]

    head, *rows = with_pruned([("accuracy", *models), *((kind, *cells(kind)) for kind in kinds)], before)
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    table = "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)
    return f"{_plain(asked(found))}, {metric_of(found)}, greedy.\n\n{table}"


def _plain(text: str) -> str:
    """Return a name as text on one line: it can neither end a cell of a table nor be taken for HTML or a mark."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
