"""The app: every verb in its place."""

import typer

from vlmc.toolchain.cli import builtin, chain, check, deploy, serve

app = typer.Typer(
    name="vlmc",
    help="Compress vision-language models to 2:4 sparsity, repair them, prove it, deploy them.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
chain.register(app)
check.register(app)
deploy.register(app)
serve.register(app)
builtin.register(app)
