"""A family for models that vlmc does not know: everything it needs is found in the model itself."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.families.base import Family, Processor, Tower, linears
from vlmc.toolchain.families.prompting import Piece

_VISION = {"vision", "visual", "image", "vit", "vpm"}
_LANGUAGE = {"language", "text", "llm"}
_BETWEEN = {"projector", "connector", "merger", "qformer", "resampler", "perceiver", "adapter", "aligner", "abstractor"}
_OTHER = {"audio", "speech", "talker", "video"}


class Discovered(Family):
    """A model of an unknown type: its towers are the largest stack of blocks with a vision name, and the largest other one.

    The interface is what is outside both towers, and modules named like a projector or connector.
    """

    def __init__(self, model_type: str, model: nn.Module, known: str) -> None:
        self.name = self.model_type = model_type
        self.known = known
        found = {part: max(stacks, key=_size) for part, stacks in _stacks(model).items()}
        if Part.LANGUAGE not in found:
            raise InputError(f"this {model_type!r} model has no language model that vlmc can find; vlmc knows {known}")
        paths = {id(module): name for name, module in model.named_modules()}
        self.towers = tuple(Tower(part, paths[id(found[part])]) for part in (Part.VISION, Part.LANGUAGE) if part in found)
        self.interface = tuple(_between(model, [tower.path for tower in self.towers]))
        listed = ", ".join(f"{tower.path} ({tower.part}, {len(found[tower.part])} blocks)" for tower in self.towers)
        self.notice = (
            f"vlmc does not know {model_type!r}: it prunes the Linear layers of {len(found)} "
            f"stack{'s' if len(found) > 1 else ''} that it found: {listed}"
        )

    def load_processor(self, folder: Path) -> Processor:
        processor = super().load_processor(folder)
        if vars(processor).get("image_token") is None:
            raise InputError(f"this {self.name!r} model has no processor for images in a text; vlmc knows {self.known}")
        return processor

    def template(self, processor: Processor, asked: Sequence[Piece], system: str = "") -> str:
        if not processor.chat_template:
            raise InputError(f"this {self.name!r} model has no chat template; vlmc knows {self.known}")
        return super().template(processor, asked, system)


def discover(config: dict[str, Any], where: str, known: str) -> Discovered:
    """Build a model without weights from the content of its config.json, and discover its family.

    Raises:
        InputError: transformers has no such model, or no language model is found in it; the message lists `known`.
        EnvironmentLacks: transformers needs another package to build it.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    model_type = str(config.get("model_type"))
    settings = {name: value for name, value in config.items() if name != "model_type"}
    try:
        described = AutoConfig.for_model(model_type, **settings)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(described)
    except ImportError as error:
        needs = " ".join(str(error).split()).split(". ")[0]
        raise EnvironmentLacks(f"{where} needs a package: {needs}; install it with pip") from None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise InputError(f"{where} is a {model_type!r} model; vlmc knows {known}") from None
    if getattr(described, "image_token_id", None) is None:
        raise InputError(f"{where} is a {model_type!r} model whose images are not tokens of the text; vlmc knows {known}")
    if described.get_text_config().is_encoder_decoder or described.is_encoder_decoder:
        raise InputError(f"{where} is a {model_type!r} model with an encoder and a decoder; vlmc knows {known}")
    return Discovered(model_type, model, known)


def _stacks(model: nn.Module) -> dict[Part, list[nn.ModuleList]]:
    """Return the outermost module lists whose blocks have at least two Linear layers, by part."""
    found: dict[Part, list[nn.ModuleList]] = {}
    taken: list[str] = []
    for name, module in model.named_modules():
        words = _words(name)
        if not isinstance(module, nn.ModuleList) or words & (_BETWEEN | _OTHER) or _inside(name, taken):
            continue
        if len(module) and all(len(list(linears(block))) > 1 for block in module):
            taken.append(name)
            found.setdefault(Part.VISION if words & _VISION else Part.LANGUAGE, []).append(module)
    return found


def _between(model: nn.Module, towers: list[str]) -> Iterator[str]:
    """Yield the names of the interface's Linear layers, without the language-model head."""
    head: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
    roots = [_root(path) for path in towers]
    for name, layer in linears(model):
        outside = not _inside(name, roots) and not _words(name) & _OTHER
        if layer.weight is not head and not _inside(name, towers) and (outside or _words(name) & _BETWEEN):
            yield name


def _root(path: str) -> str:
    """Return the path of the vision or language model that a stack belongs to, or else the stack's own path."""
    parts = path.split(".")
    named = (count for count, part in enumerate(parts, 1) if _words(part) & (_VISION | _LANGUAGE))
    return ".".join(parts[: next(named, len(parts))])


def _inside(name: str, places: list[str]) -> bool:
    return any(name.startswith(f"{place}.") for place in places)


def _words(name: str) -> set[str]:
    return set(re.split(r"[._]", name.lower()))


def _size(stack: nn.ModuleList) -> int:
    return sum(parameter.numel() for parameter in stack.parameters())
