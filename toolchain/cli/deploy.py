"""The verbs that deploy: export and run."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.exporters import BACKENDS
from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.arguments import ARTIFACT, ArtifactArgument
from vlmc.toolchain.cli.options import NO_VALUE, Terminal, command
from vlmc.toolchain.settings import ExportSettings, RunSettings


def export(
    options: ExportSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    backend: Annotated[
        str, typer.Option("--backend", help=" or ".join(BACKENDS) + ".", metavar="|".join(BACKENDS))
    ] = "onnx",
) -> None:
    """Export graphs or engines into the artifact, and check their parity and sparsity."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.reporting.tables import show_export
    from vlmc.toolchain.stages.export import Export

    found = Export(options, backend, Progress(quiet=terminal.quiet)).run(Artifact.open(artifact))
    terminal.result(found, lambda: show_export(found))


def run(
    options: RunSettings,
    terminal: Terminal,
    image: Annotated[
        list[Path],
        typer.Option("--image", metavar="FILE", help="Image file; may be repeated for a model that takes several."),
    ],
    artifact: ArtifactArgument = ARTIFACT,
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Question about the image.")] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", metavar=NO_VALUE, help="Hold a conversation: every line of standard input is a question."),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", metavar=NO_VALUE, help="Use the prompt as the model's whole input, image token included."),
    ] = False,
) -> None:
    """Answer a question about one or more images with the exported graphs, or hold a conversation, without torch."""
    from vlmc.runtime import load
    from vlmc.toolchain.cli.conversation import Conversation, answer_once

    if prompt is None and not chat:
        raise InputError("there is no question: give --prompt TEXT, or --chat for a conversation")
    if chat and raw:
        raise InputError("--raw and --chat do not go together: a conversation is put into the model's template")
    with load(artifact) as model:
        if chat or prompt is None:
            Conversation(model, image, options, terminal.seed).hold(terminal, prompt)
        else:
            pieces = model.stream(image, prompt, raw=raw, seed=terminal.seed, **options.model_dump())
            answer_once(terminal, pieces)


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    for name, function in (("export", export), ("run", run)):
        command(app, name)(function)
