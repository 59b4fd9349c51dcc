"""What a dense model's own card says about its licence and origin, for the cards of what is made of it."""

import re
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact import CARD
from vlmc.toolchain.machine.yaml_text import parse_yaml

_MOST = 1 << 16  # bytes of a card that are looked at
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_HUB_ID = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")
_FORMS = {
    "license": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}"),
    "license_name": re.compile(r"[\w][\w .+()-]{0,99}"),
    "license_link": re.compile(r"https://[\w.-]+/[\w./%~#-]{0,200}"),
}
_BASES = 8


def is_hub_name(name: str) -> bool:
    """Whether a name is OWNER/NAME in the hub's letters."""
    return _HUB_ID.fullmatch(name) is not None


def said(folder: Path) -> dict[str, Any]:
    """Return `license`, `license_name`, `license_link` and `base_model` from the YAML in a model folder's README.md.

    Only values of the hub's forms are taken: names and https links. A card that is missing or cannot be read says nothing.
    """
    fields = _fields(folder / CARD)
    found: dict[str, Any] = {
        name: value
        for name, form in _FORMS.items()
        if isinstance(value := fields.get(name), str) and form.fullmatch(value.strip()) and value == value.strip()
    }
    bases = fields.get("base_model")
    names = [one for one in (bases if isinstance(bases, list) else [bases]) if isinstance(one, str) and is_hub_name(one)]
    return found | ({"base_model": names[:_BASES]} if names else {})


def _fields(path: Path) -> dict[Any, Any]:
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as stream:
            front = _FRONT.match(stream.read(_MOST).decode("utf-8", errors="replace"))
        found = parse_yaml(front[1]) if front else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
