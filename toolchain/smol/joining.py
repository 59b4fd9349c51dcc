"""Joining the parts of `smol`: SmolLM2 from its GGUF file and what was trained."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import Idefics3ForConditionalGeneration

from vlmc.toolchain.smol.architecture import build, configure, processor
from vlmc.toolchain.smol.language import read_tokenizer, read_weights
from vlmc.toolchain.smol.tuning import merge

WEIGHTS = "vision.safetensors"
LANGUAGE = "language.safetensors"
"""What the language model has learned, as adapters; missing where it has not learned anything."""

CARD = "README.md"


def join(gguf_path: Path, vision: Path, folder: Path) -> None:
    """Write the whole model in fp16, in transformers' layout, with its processor and its card."""
    model = blank(gguf_path)
    trained = load_file(vision / WEIGHTS)
    expected = {name for name in model.state_dict() if _is_trained(name)}
    if trained.keys() != expected:
        raise ValueError(f"{vision / WEIGHTS} does not fit: {sorted(trained.keys() ^ expected)[0]}")
    model.load_state_dict(trained, strict=False)
    if (vision / LANGUAGE).is_file():
        merge(model, load_file(vision / LANGUAGE))
    model.half().save_pretrained(folder)
    processor(read_tokenizer(gguf_path)).save_pretrained(folder)
    (folder / CARD).write_bytes((vision / CARD).read_bytes())
    for path in folder.iterdir():
        path.chmod(0o644)


def blank(gguf_path: Path) -> Idefics3ForConditionalGeneration:
    """Return the model with SmolLM2's weights, and a vision encoder and a connector that have not learned anything."""
    weights, language = read_weights(gguf_path)
    model = build(configure(language))
    own = {name.removeprefix("model."): weight for name, weight in weights.items() if name != "lm_head.weight"}
    model.model.text_model.load_state_dict(own)
    model.tie_weights()
    return model


def trained_part(model: Any) -> dict[str, Any]:
    """Return the weights of the vision encoder and the connector, by their names in the whole model."""
    return {name: weight for name, weight in model.state_dict().items() if _is_trained(name)}


def _is_trained(name: str) -> bool:
    return ".vision_model." in name or ".connector." in name
