"""Model families: one file each, found by transformers' `model_type`."""

from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import Family, Tower
from vlmc.toolchain.families.blip2 import Blip2
from vlmc.toolchain.families.llava import Llava

__all__ = ["FAMILIES", "Family", "Tower", "find"]

FAMILIES: dict[str, Family] = {family.model_type: family for family in (Llava(), Blip2())}


def find(model_type: str, where: str) -> Family:
    """Return the family of a model type.

    Raises:
        InputError: vlmc does not know it; the message lists those it does.
    """
    if model_type not in FAMILIES:
        raise InputError(f"{where} is a {model_type!r} model; vlmc knows {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model_type]
