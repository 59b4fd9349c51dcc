"""The verb serve."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmc.toolchain.cli.arguments import ARTIFACT, ArtifactArgument
from vlmc.toolchain.cli.options import Terminal, command
from vlmc.toolchain.settings import ServeSettings

if TYPE_CHECKING:
    from vlmc.runtime.serving import Served

_KEY = "VLMC_API_KEY"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def serve(
    options: ServeSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", metavar="ARTIFACT", help="Another one to serve beside it; may be repeated."),
    ] = None,
) -> None:
    """Serve exported graphs over HTTP as OpenAI's API, with a page at / to try them on; without torch.

    Ctrl-C or SIGTERM ends it once everything that was asked is answered.
    """
    from vlmc.runtime.serving import Limits, start

    def tell(url: str, models: "Mapping[str, Served]") -> None:
        if key is None and options.host not in _LOOPBACK:
            print(f"vlmc: warning: whoever reaches {options.host} may ask: set --api-key", file=sys.stderr)
        listed = {name: served.sparsity for name, served in models.items()}
        terminal.result({"url": url, "models": listed}, lambda: _show(url, listed))

    key = options.api_key or os.environ.get(_KEY)
    start.serve(
        [artifact, *(beside or [])],
        limits=Limits(options.max_tokens, options.timeout, body=int(options.max_body * 1e6)),
        key=key,
        remote=options.allow_remote,
        log=not terminal.quiet,
        tell=tell,
        vision_bytes=int(options.image_cache * 1e6),
        **options.model_dump(include={"host", "port", "backend", "threads", "max_batch", "max_queue"}),
    )


def _show(url: str, models: Mapping[str, str]) -> None:
    for name, sparsity in models.items():
        typer.echo(f"{name} ({sparsity})")
    typer.echo(f"{url}/ to try, {url}/v1 for clients; Ctrl-C ends it")


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    command(app, "serve")(serve)
