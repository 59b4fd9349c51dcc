"""The verbs of built-in sources: fetch, for models that are not part of the package, and NAME-data, which writes samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vlmc.toolchain import builtin
from vlmc.toolchain.cli.options import NO_VALUE, OUTPUT, Terminal, command
from vlmc.toolchain.settings import WriteSettings


def fetch(
    terminal: Terminal, name: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a built-in model.")]
) -> None:
    """Download a built-in model."""
    from vlmc.runtime.errors import InputError

    download = _fetched().get(name)
    if download is None:
        raise InputError(f"there is nothing to fetch for {name}: give one of {', '.join(_fetched())}")
    folder = download()
    terminal.result({"folder": str(folder)}, lambda: typer.echo(str(folder)))


def _fetched() -> dict[str, Callable[[], Path]]:
    return {name: model.fetch for name, model in builtin.models().items() if model.fetch is not None}


def _writer(data: builtin.NamedData) -> Callable[..., None]:
    def write(
        options: WriteSettings,
        terminal: Terminal,
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
        force: Annotated[
            bool, typer.Option("--force", metavar=NO_VALUE, rich_help_panel=OUTPUT, help="Replace the folder if it exists.")
        ] = False,
    ) -> None:
        path = data.write(directory, options.split, options.count, force=force)
        terminal.result({"file": str(path)}, lambda: typer.echo(str(path)))

    write.__doc__ = f"Write {data.title} as PNG images and a JSONL file of LLaVA conversations."
    return write


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    if _fetched():
        command(app, "fetch")(fetch)
    for data in builtin.data_sets().values():
        command(app, f"{data.name}-data")(_writer(data))
