"""YAML as texts only: it reads 2:4 as 124 otherwise; and without aliases, of which a few lines can stand for gigabytes."""

from typing import Any


def parse_yaml(text: str) -> Any:
    """Return what a YAML text says, each value a text, a list or a mapping; no object is made.

    Raises:
        ValueError: it is not YAML, has an alias, or is nested too deeply; the message says so.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name): write the value out")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader=Loader)  # a BaseLoader makes no objects
    except (RecursionError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from None
