"""The verbs that deploy: export and run."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.exporters import BACKENDS
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
    """Write graphs or engines into the artifact; parity and sparsity are checked before it is called done."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.reporting.tables import show_export
    from vlmc.toolchain.stages.export import export as run_export

    found = run_export(Artifact.open(artifact), options, backend, Progress(quiet=terminal.quiet))
    terminal.result(found, lambda: show_export(found))


def run(
    options: RunSettings,
    terminal: Terminal,
    image: Annotated[
        list[Path], typer.Option("--image", help="Image file; may be repeated, where the model looks at several.")
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="Question about the image.")],
    artifact: ArtifactArgument = ARTIFACT,
    raw: Annotated[
        bool,
        typer.Option("--raw", metavar=NO_VALUE, help="The prompt is the model's whole input, with a slot for the image."),
    ] = False,
) -> None:
    """Answer one question about an image, or several, on the exported graphs, without torch."""
    from vlmc.runtime import load

    with load(artifact) as model:
        answer = model.generate(image, prompt, raw=raw, seed=terminal.seed, **options.model_dump())
    terminal.result({"answer": str(answer)}, lambda: typer.echo(str(answer)))


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    for name, function in (("export", export), ("run", run)):
        command(app, name)(function)
