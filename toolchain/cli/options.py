"""From option groups to flags: a field of a Settings class becomes a Typer option, its docstring the help."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from vlmc.runtime.errors import InputError
from vlmc.toolchain.settings import Settings

Printable = Callable[[], None]


@dataclass(frozen=True)
class Terminal:
    """How this command was asked to speak: `--json`, `--quiet`; and the seed that all of it runs with."""

    as_json: bool
    quiet: bool
    seed: int

    def result(self, data: dict[str, Any], show: Printable) -> None:
        """Print the result: one JSON object, or what `show` prints."""
        if self.as_json:
            print(json.dumps(data, ensure_ascii=False))
        elif not self.quiet:
            show()
        sys.stdout.flush()


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no tables.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
_COMMON = {"json_": JsonFlag, "quiet": QuietFlag, "seed": SeedOption, "debug": DebugFlag}
_DEFAULTS: dict[str, Any] = {"json_": False, "quiet": False, "seed": 0, "debug": False}


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a verb.

    The function's parameters become arguments and options as Typer reads them; one annotated with a Settings class becomes
    an option for each of its fields, and one annotated `Terminal` is filled from the options that every verb has.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        groups = {name: hint for name, hint in _hints(function).items() if _is_group(hint)}

        @functools.wraps(function)
        def call(**values: Any) -> None:
            as_json, quiet, leads = values.pop("json_"), values.pop("quiet"), os.environ.get("RANK", "0") == "0"
            terminal = Terminal(as_json and leads, quiet or not leads, values.pop("seed"))
            values.pop("debug")
            recipe = _read_recipe(values.pop("recipe", None))
            for parameter, group in groups.items():
                values[parameter] = _collect(group, values, recipe)
            function(**values, terminal=terminal)

        call.__signature__ = _signature(function, groups)  # type: ignore[attr-defined]
        del call.__wrapped__
        app.command(name)(call)
        return function

    return register


def _hints(function: Callable[..., None]) -> dict[str, Any]:
    return inspect.get_annotations(function, eval_str=True)


def _is_group(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, Settings)


def _signature(function: Callable[..., None], groups: dict[str, Any]) -> inspect.Signature:
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            fields = groups[parameter.name].model_fields
            parameters += [_option(name, field) for name, field in fields.items()]
        elif parameter.name != "terminal":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=hint)
        for name, hint in _COMMON.items()
    ]
    return inspect.Signature(parameters)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    flag = f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag
    shown = "" if field.default in (None, False, {}) else f" [default: {field.default}]"
    option = typer.Option(flag, help=f"{field.description}{shown}", show_default=False, metavar=_metavar(field))
    hint = Annotated[_plain_type(field) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _plain_type(field: FieldInfo) -> type:
    """The type that Typer parses; choices stay text, for pydantic checks them."""
    return next((kind for kind in (int, float, bool) if field.annotation in (kind, kind | None)), str)


def _metavar(field: FieldInfo) -> str | None:
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    return "|".join(choices) or None


def _collect(group: type[Settings], values: dict[str, Any], recipe: dict[str, Any]) -> Settings:
    """Take the group's fields out of `values`, over what the recipe says."""
    given = {name: values.pop(name) for name in group.model_fields}
    unknown = sorted(recipe.keys() - group.model_fields.keys())
    if unknown:
        raise InputError(f"the recipe has an unknown key {unknown[0]!r}: it may have {', '.join(group.model_fields)}")
    chosen = {**recipe, **{name: value for name, value in given.items() if value is not None}}
    try:
        return group(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"--{name.replace('_', '-')} {chosen.get(name)}: {message[:1].lower()}{message[1:]}") from None


def _read_recipe(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # text only: YAML reads 2:4 as 124
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"the recipe {path} must be a YAML mapping of options, such as 'target: 2:4'")
    return {str(name).replace("-", "_"): value for name, value in content.items()}
