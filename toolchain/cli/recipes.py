"""Recipes: YAML files of options."""

from pathlib import Path
from typing import Any

from vlmc.runtime.errors import InputError, one_line

MOST = 1_000_000  # bytes


def read_recipe(path: Path | None) -> dict[str, Any]:
    """Return a recipe's options as texts, or as mappings of texts.

    Raises:
        InputError: it cannot be read, or is no mapping of options.
    """
    if path is None:
        return {}
    import yaml

    class Loader(yaml.BaseLoader):
        """Texts only, for YAML reads 2:4 as 124; and no aliases, of which a few lines can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name): write the value out")
            return super().compose_node(parent, index)

    try:
        content = yaml.load(_text(path), Loader=Loader)  # a BaseLoader makes no objects
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
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
