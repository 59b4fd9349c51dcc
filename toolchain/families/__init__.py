"""Model families: one file each, found by a model's config.json."""

from pathlib import Path
from typing import Any

from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import Family, Tower
from vlmc.toolchain.families.blip2 import Blip2
from vlmc.toolchain.families.blip2_t5 import Blip2T5
from vlmc.toolchain.families.discovered import discover
from vlmc.toolchain.families.gemma3 import Gemma3
from vlmc.toolchain.families.idefics3 import Idefics3
from vlmc.toolchain.families.instructblip import InstructBlip
from vlmc.toolchain.families.instructblip_t5 import InstructBlipT5
from vlmc.toolchain.families.internvl import InternVL
from vlmc.toolchain.families.llava import Llava
from vlmc.toolchain.families.llava_next import LlavaNext
from vlmc.toolchain.families.paligemma import PaliGemma
from vlmc.toolchain.families.qwen2_5_vl import Qwen25VL
from vlmc.toolchain.families.qwen3_vl import Qwen3VL
from vlmc.toolchain.families.smolvlm import SmolVLM

__all__ = ["FAMILIES", "Family", "Tower", "exported_names", "find"]

_KNOWN: tuple[Family, ...] = (
    Llava(),
    LlavaNext(),
    Blip2(),
    Blip2T5(),
    InstructBlip(),
    InstructBlipT5(),
    Qwen25VL(),
    Qwen3VL(),
    Idefics3(),
    SmolVLM(),
    PaliGemma(),
    InternVL(),
    Gemma3(),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _KNOWN}


def exported_names() -> list[str]:
    """Return the names of the families that vlmc can export."""
    return [name for name, family in FAMILIES.items() if family.exportable]


def find(config: dict[str, Any], where: str, folder: Path | None = None) -> Family:
    """Return the family of a model by the content of its config.json; for an unknown one, a family discovered in the model.

    `folder` is the model's, if its own code is trusted.

    Raises:
        InputError: vlmc does not support the model; the message lists the families that it knows.
    """
    model_type = config.get("model_type")
    kin = [family for family in FAMILIES.values() if family.model_type == model_type]
    if not kin:
        return discover(config, where, ", ".join(sorted(FAMILIES)), folder)
    text = config.get("text_config") or {}
    if not isinstance(text, dict):
        raise InputError(
            f"{where} has a damaged config.json: its text_config is a {type(text).__name__}; copy the file again"
        )
    language = text.get("model_type")
    for family in kin:
        if not family.languages or language in family.languages:
            return family
    known = ", ".join(name for family in kin for name in family.languages)
    raise InputError(f"{where} is a {model_type} model with a {language!r} language model; vlmc knows it with {known}")
