"""The model card of an artifact: what was done, what was measured, how to run it. Made from the manifest alone."""

from typing import Any

from vlmc.runtime.artifact import Manifest, Step

REPORT = "reports/eval.json"
_ON_GRAPHS = (
    "```\nvlmc verify-sparsity .\nvlmc export . --backend onnx\n"
    "vlmc run . --image picture.png --prompt 'what is shown'\n```\n"
)
_ON_TRANSFORMERS = (
    "vlmc does not export such a model yet; transformers loads it as any other.\n\n```\nvlmc verify-sparsity .\n"
    "python -c \"from transformers import AutoModelForImageTextToText as Model; Model.from_pretrained('.')\"\n```\n"
)


def card(manifest: Manifest, evaluation: dict[str, Any] | None = None) -> str:
    """Return the text of README.md; `evaluation` is the content of `reports/eval.json`, where it was measured."""
    parts = [
        _front_matter(manifest),
        f"# {manifest.origin.model}, {_patterns(manifest)}, {manifest.state}\n",
        f"Made by vlmc from `{manifest.origin.model}` (SHA-256 `{manifest.origin.digest[:16]}...`). "
        f"{len(manifest.layers)} layers hold {_patterns(manifest)}; weights keep their dense layout with exact zeros, so "
        "`transformers` loads this folder as it is.\n",
        "## What was done\n",
        "\n".join(_step(number, step) for number, step in enumerate(manifest.history, 1)) + "\n",
        "## What was measured\n",
        _accuracies(evaluation) if evaluation else "Nothing yet: `vlmc eval .` measures it beside its dense twin.\n",
        "## How to run it\n",
        _ON_GRAPHS if manifest.serving is not None else _ON_TRANSFORMERS,
    ]
    return "\n".join(parts)


def _front_matter(manifest: Manifest) -> str:
    fields = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": manifest.origin.model,
        "tags": "[vlmc, sparse]",
    }
    return "---\n" + "".join(f"{name}: {value}\n" for name, value in fields.items()) + "---\n"


def _patterns(manifest: Manifest) -> str:
    return ", ".join(dict.fromkeys(layer.pattern for layer in manifest.layers.values()))


def _step(number: int, step: Step) -> str:
    options = ", ".join(f"{name} {value}" for name, value in step.config.items() if value is not None)
    measures = ", ".join(f"{name} {value}" for name, value in step.measures.items() if not isinstance(value, dict))
    return f"{number}. **{step.stage}**: {options or 'no options'}" + (f". Measured: {measures}" if measures else "") + "."


def _accuracies(found: dict[str, Any]) -> str:
    models = found["models"]
    where = f"{found['data']} ({found['split']})" if found["split"] else found["data"]
    kinds = [*next(iter(models.values()))["by_kind"], "overall"]

    def cell(model: dict[str, Any], kind: str) -> str:
        fraction = model["overall"] if kind == "overall" else model["by_kind"][kind]
        return f"{100 * fraction:.1f} %"

    head = f"| accuracy | {' | '.join(models)} |\n|---|{'---:|' * len(models)}\n"
    rows = "".join(f"| {kind} | {' | '.join(cell(model, kind) for model in models.values())} |\n" for kind in kinds)
    return f"{found['count']} questions of {where}, exact match, greedy.\n\n{head}{rows}"
