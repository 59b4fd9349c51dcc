"""Recipes: YAML files of options, and one that vlmc brings."""

from pathlib import Path
from typing import Any

from vlmc.runtime.errors import InputError, one_line
from vlmc.toolchain.machine.yaml_text import parse_yaml
from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.paper import NAME, paper

MOST = 1_000_000  # bytes


def read_recipe(path: Path | None, group: type[Settings] = Settings) -> dict[str, Any]:
    """Return a recipe's options as texts, or as mappings of texts; of `ressa-paper`, those that a group of options has.

    Raises:
        InputError: it cannot be read, or is no mapping of options.
    """
    if path is None:
        return {}
    if path == Path(NAME) and not path.exists():
        return {name: str(value) for name, value in paper(group).items()}
    try:
        content = parse_yaml(_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"the recipe {path} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"the recipe {path} must be a YAML mapping of options, such as 'target: 2:4'")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def _text(path: Path) -> str:
    if not path.is_file() and not str(path).startswith(("/dev/fd/", "/dev/stdin")):  # the shell's <(...)
        raise ValueError("it is not a file")
    with path.open("rb") as stream:
        content = stream.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"it has more than {MOST:,} bytes")
    return content.decode("utf-8")
