"""The app: every verb in its place."""

from importlib.metadata import version
from typing import Annotated

import typer

from vlmc.toolchain.cli import builtin, chain, check, deploy, serve

app = typer.Typer(
    name="vlmc",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show(wanted: bool) -> None:
    if wanted:
        print(f"vlmc {version('vlmc')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Compress vision-language models to 2:4 sparsity, repair them, prove it, deploy them."""


chain.register(app)
check.register(app)
deploy.register(app)
serve.register(app)
builtin.register(app)
