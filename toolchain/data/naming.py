"""How an artifact names the data that it was made with: without paths, which would reveal the user's machine."""

import os
import re
from pathlib import Path

from vlmc.toolchain.data.forms.places import is_hub_id
from vlmc.toolchain.data.sources import split_sources


def named(text: str) -> str:
    """Return the text of `--data` with each path shortened to its last part; weights, keys and hub ids stay."""
    return ",".join(_named(part) for part in split_sources(text))


def _named(part: str) -> str:
    if Path(part).exists():
        return _last(part)
    place, mark, query = part.partition("?")
    source, _, _ = place.rpartition("=")
    short = place if is_hub_id(source or place) else _last(place)
    return short + mark + re.sub(r"(?<=folder=)[^&]*", lambda found: _last(found[0].replace("%2F", "/")), query)


def _last(place: str) -> str:
    whole = os.path.abspath(place) if Path(place).exists() else place
    return re.split(r"[/\\]", whole.rstrip("/\\"))[-1] or "data"
