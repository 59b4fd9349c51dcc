"""From option groups to flags: a field of a Settings class becomes a Typer option, its docstring the help."""

import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from vlmc.runtime.errors import EnvironmentLacks, InputError, shortened
from vlmc.toolchain.cli.recipes import read_recipe
from vlmc.toolchain.cli.streams import BrokenOutput
from vlmc.toolchain.settings import Settings, advanced

Printable = Callable[[], None]


@dataclass(frozen=True)
class Terminal:
    """How a command prints, `--json` and `--quiet`, and the seed that it runs with."""

    as_json: bool
    quiet: bool
    seed: int

    def result(self, data: dict[str, Any], show: Printable) -> None:
        """Print the result: one JSON object, or what `show` prints.

        Raises:
            EnvironmentLacks: standard output is closed or full.
            BrokenOutput: nobody reads it any more.
        """
        if self.quiet and not self.as_json:
            return
        if sys.stdout is None:
            raise EnvironmentLacks("the result cannot be printed: standard output is closed")
        try:
            if self.as_json:
                print(json.dumps(data, ensure_ascii=not _takes_all(sys.stdout.encoding)))
            else:
                show()
            sys.stdout.flush()
        except BrokenPipeError:
            raise BrokenOutput from None
        except OSError as error:
            raise EnvironmentLacks(f"the result cannot be printed: {error.strerror}") from None


def _check_place(path: Path) -> None:
    """Raise InputError where no file of an artifact could name this folder: safetensors takes UTF-8 alone."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {shortened(str(path), 100)} is not UTF-8: choose another") from None


def _takes_all(encoding: str | None) -> bool:
    return (encoding or "").casefold().replace("-", "") == "utf8"


OUTPUT = "Output"
"""The `--help` panel of the options that every verb has, and of where its result goes."""

NO_VALUE = " "
"""What `--help` shows as the value of a flag."""

_PANELS = ("Options", "Study", "Evaluation", "Pruning", "Repair", "Rounding", "Data", OUTPUT)
_ORDER = (*_PANELS, *(advanced(panel) for panel in _PANELS))
"""The panels in the order of `--help`, the advanced ones last."""

JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json", metavar=NO_VALUE, help="Print one JSON object on stdout and nothing else.", rich_help_panel=OUTPUT
    ),
]
QuietFlag = Annotated[
    bool, typer.Option("--quiet", "-q", metavar=NO_VALUE, help="No progress bars, no tables.", rich_help_panel=OUTPUT)
]
MOST_SEED = 2**63 - 1
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=MOST_SEED, metavar="N", help="Random seed.", rich_help_panel=OUTPUT)
]
DebugFlag = Annotated[
    bool, typer.Option("--debug", metavar=NO_VALUE, help="Show the traceback of an error.", rich_help_panel=OUTPUT)
]
_PLACES = {"out", "directory"}
"""Parameters that say where a result goes."""
_NO = "no_"
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
            for place in _PLACES & values.keys():
                if values[place] is not None:
                    _check_place(values[place])
            recipe = values.pop("recipe", None)
            for parameter, group in groups.items():
                values[parameter] = _collect(group, values, read_recipe(recipe, group))
            function(**values, terminal=terminal)

        call.__signature__ = _signature(function, groups)  # type: ignore[attr-defined]
        del call.__wrapped__
        app.command(name, cls=_Command)(call)
        return function

    return register


class _Command(TyperCommand):
    """A verb whose `--help` is listed with the other options that every verb has."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel, option.metavar = OUTPUT, NO_VALUE
        return option


def _hints(function: Callable[..., None]) -> dict[str, Any]:
    return inspect.get_annotations(function, eval_str=True)


def _is_group(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, Settings)


def _signature(function: Callable[..., None], groups: dict[str, Any]) -> inspect.Signature:
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            parameters += _options(groups[parameter.name])
        elif parameter.name != "terminal":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=hint)
        for name, hint in _COMMON.items()
    ]
    return inspect.Signature(sorted(parameters, key=_place))


def _options(group: type[Settings]) -> list[inspect.Parameter]:
    """Return a parameter for each field, the group's own before those that it inherits.

    A flag has a second, hidden parameter that turns it off where a recipe sets it.
    """
    found = []
    for name in sorted(group.model_fields, key=lambda name: name not in inspect.get_annotations(group)):
        field = group.model_fields[name]
        flag, panel = "--" + name.replace("_", "-"), group.panel_of(name)
        option = typer.Option(flag, help=_help(field), show_default=False, metavar=_metavar(field), rich_help_panel=panel)
        found.append(_parameter(name, Annotated[_plain_type(field) | None, option]))
        if field.annotation is bool:
            found.append(_parameter(_NO + name, Annotated[bool | None, typer.Option(f"--no-{flag[2:]}", hidden=True)]))
    return found


def _parameter(name: str, hint: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _place(parameter: inspect.Parameter) -> int:
    """Return the place of a parameter's panel in `--help`: Typer lists panels in the order of parameters."""
    panel = getattr(get_args(parameter.annotation)[-1], "rich_help_panel", None) or "Options"
    return _ORDER.index(panel)


def _help(field: FieldInfo) -> str:
    """Return the docstring, the choices that it does not name, and the default, with brackets escaped."""
    text = str(field.description)
    unnamed = [choice for choice in _choices(field) if not re.search(rf"\b{re.escape(choice)}\b", text)]
    listed = f" One of {', '.join(_choices(field))}." if unnamed else ""
    shown = "" if field.default is None or field.default is False or field.default == {} else f" [default: {field.default}]"
    return f"{text}{listed}{shown}".replace("[", "\\[")


def _plain_type(field: FieldInfo) -> type:
    """The type that Typer parses; choices stay text, for pydantic checks them."""
    return next((kind for kind in (int, float, bool) if field.annotation in (kind, kind | None)), str)


def _metavar(field: FieldInfo) -> str:
    """Return a short word for the value, which leaves room for the help."""
    words = {int: "N", float: "X", bool: NO_VALUE, str: "NAME" if _choices(field) else "TEXT"}
    return words[_plain_type(field)]


def _choices(field: FieldInfo) -> list[str]:
    """Return the values that the option may have."""
    found: list[str] = []
    for one in get_args(field.annotation):
        found += [one] if isinstance(one, str) else [word for word in get_args(one) if isinstance(word, str)]
    return found


def _collect(group: type[Settings], values: dict[str, Any], recipe: dict[str, Any]) -> Settings:
    """Take the group's fields out of `values`; they override the recipe."""
    given = {name: values.pop(name) for name in group.model_fields}
    given |= {name: False for name in group.model_fields if values.pop(_NO + name, None)}
    unknown = sorted(recipe.keys() - group.model_fields.keys())
    if unknown:
        raise InputError(
            f"the recipe has an unknown key {shortened(unknown[0], 100)!r}: it may have {', '.join(group.model_fields)}"
        )
    chosen = {**recipe, **{name: value for name, value in given.items() if value is not None}}
    try:
        return group(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        given_value = shortened(str(chosen.get(name)), 100)
        raise InputError(f"--{name.replace('_', '-')} {given_value}: {message[:1].lower()}{message[1:]}") from None
