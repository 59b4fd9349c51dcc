"""The YAML at the head of a model card, which the hub reads: licence, base model, tags, and what was measured.

What was measured is a part between two comments, that vlmc updates only while it is unedited, as in the card's text.
"""

from collections.abc import Mapping
from typing import Any

from vlmc.runtime.artifact import Manifest
from vlmc.toolchain.reporting.tables import metric_of

SOURCE_CARD = "source_card"
"""The measure in prune's history that holds what the dense model's card says."""
_TYPES = {"exact": "exact_match", "vqa": "accuracy"}
"""How the hub calls a metric, if not by its own name."""


def fields(manifest: Manifest) -> str:
    """Return the lines that follow from the manifest alone; values that its source does not tell are left out."""
    from vlmc.toolchain.models.source_card import is_hub_name

    told: dict[str, Any] = {}
    for step in manifest.history:
        told |= step.measures.get(SOURCE_CARD, {})
    base = [manifest.origin.model] if is_hub_name(manifest.origin.model) else told.get("base_model")
    found: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        **{name: told[name] for name in ("license", "license_name", "license_link") if name in told},
        **({"base_model": base[0] if len(base) == 1 else base} if base else {}),
        "tags": ["vlmc", "sparse", manifest.family, *dict.fromkeys(layer.pattern for layer in manifest.layers.values())],
    }
    return dump(found)


def measured(manifest: Manifest, evaluation: Mapping[str, Any]) -> str:
    """Return `model-index`: the last model of an evaluation, which is the artifact, on its data."""
    model = list(evaluation["models"].values())[-1]
    metric = str(evaluation.get("metric", "exact"))
    value = round(100 * float(model["overall"]), 2)
    data = {"name": str(evaluation["data"]), "type": str(evaluation["data"])}
    data |= {"split": str(evaluation["split"])} if evaluation["split"] else {}
    task = {"type": "image-text-to-text", "name": "Image-Text-to-Text"}
    score = {"type": _TYPES.get(metric, metric), "name": metric_of(evaluation), "value": value}
    result = {"task": task, "dataset": data, "metrics": [score]}
    return dump({"model-index": [{"name": f"{manifest.origin.model}, {manifest.state}", "results": [result]}]})


def dump(found: Mapping[str, Any]) -> str:
    """Return YAML, keys in their order, each text on one line."""
    import yaml

    text: str = yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True, width=1 << 20)
    return text.rstrip("\n")
