"""The syntax of `--data`: NAME[=WEIGHT][?key=value&key=value], several separated by commas."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from urllib.parse import parse_qsl

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.questions.columns import ROLES
from vlmc.toolchain.settings import DataSettings

_COMMA = re.compile(r",(?![^{}]*\})")  # a comma inside braces belongs to a file pattern


@dataclass(frozen=True)
class Source:
    """One data set: its name, its weight in a mixture, and how it is read."""

    name: str
    weight: float | None
    split: str | None
    config: str | None
    prompt: str
    folder: Path | None
    columns: Mapping[str, str]


def parse_sources(settings: DataSettings) -> list[Source]:
    """Parse the sources of the settings; a file or folder named by the whole text is a single source.

    Raises:
        InputError: the syntax is wrong, or only some sources have weights.
    """
    found = [_source(part, settings) for part in split_sources(settings.data)]
    if len({source.weight is None for source in found}) > 1:
        raise InputError(f"--data {settings.data}: give every source a weight, or none")
    return found


def split_sources(text: str) -> list[str]:
    """Split the text of `--data` into its sources; a file or folder named by the whole text is a single one."""
    return [text] if Path(text).exists() else [part.strip() for part in _COMMA.split(text)]


def parse_columns(text: str) -> dict[str, str]:
    """Parse `role=column,role=column`.

    Raises:
        InputError: the syntax is wrong, or there is no such role.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {role.strip(): column.strip() for role, _, column in pairs}
    wrong = [role for role, column in found.items() if role not in ROLES or not column]
    if wrong:
        raise InputError(f"--columns {text}: {wrong[0]!r} is not one of {', '.join(ROLES)} with a column, such as image=img")
    return found


def _source(part: str, settings: DataSettings) -> Source:
    whole, _, query = (part, "", "") if Path(part).exists() else part.partition("?")
    name, weight = _weighed(whole)
    if not name:
        raise InputError(f"--data {settings.data}: a source has no name")
    told = _query(query, part)
    columns = parse_columns(settings.columns or "") | {role: told[role] for role in ROLES if role in told}
    return Source(
        name,
        weight,
        told.get("split", settings.split),
        told.get("config"),
        told.get("prompt", settings.caption_prompt),
        Path(told["folder"]) if "folder" in told else None,
        columns,
    )


def _weighed(text: str) -> tuple[str, float | None]:
    name, equals, number = text.rpartition("=")
    if not equals or "/" in number or Path(text).exists():
        return text, None
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not (isfinite(weight) and weight > 0):
        raise InputError(f"--data {text}: the weight {number!r} is not a positive number")
    return name, weight


def _query(text: str, part: str) -> dict[str, str]:
    known = ("split", "config", "prompt", "folder", *ROLES)
    try:
        told = dict(parse_qsl(text, strict_parsing=True)) if text else {}
    except ValueError:
        raise InputError(f"--data {part}: what follows the ? must be key=value&key=value") from None
    if unknown := sorted(told.keys() - set(known)):
        raise InputError(f"--data {part}: unknown key {unknown[0]!r}: the keys are {', '.join(known)}")
    return told
