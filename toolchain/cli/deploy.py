"""The verbs that deploy: export, unpack and run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlmc.exporters import BACKENDS
from vlmc.runtime.errors import InputError
from vlmc.toolchain.cli.arguments import ARTIFACT, ArtifactArgument, DenseOption, DownloadFlag
from vlmc.toolchain.cli.options import NO_VALUE, Terminal, command
from vlmc.toolchain.settings import ExportSettings, RoundingSettings, RunSettings


def export(
    options: ExportSettings,
    rounding: RoundingSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    backend: Annotated[
        str, typer.Option("--backend", help=" or ".join(BACKENDS) + ".", metavar="|".join(BACKENDS))
    ] = "onnx",
    dense: DenseOption = None,
    download: DownloadFlag = False,
) -> None:
    """Export graphs or engines into the artifact, and check their parity and sparsity."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.reporting.tables import show_export
    from vlmc.toolchain.stages.export import Export

    progress = Progress(quiet=terminal.quiet)
    stage = Export(options, backend, progress, dense=dense, download=download, rounding=rounding, seed=terminal.seed)
    found = stage.run(Artifact.open(artifact))
    folder = None if options.layout is None else artifact / options.layout
    terminal.result(found, lambda: show_export(found, folder))


def unpack(
    terminal: Terminal,
    source: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="An artifact with packed ONNX graphs, or one such file.")
    ] = ARTIFACT,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write a file; an artifact's are replaced.")
    ] = None,
) -> None:
    """Make the packed weights of ONNX graphs dense again, bit for bit, for tools that cannot load them."""
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.reporting.tables import megabytes
    from vlmc.toolchain.stages.unpack import unpack_artifact, unpack_to

    if source.is_dir():
        if out is not None:
            raise InputError("--out is for a single file: an artifact's graphs are replaced where they are")
        found = unpack_artifact(source, Progress(quiet=terminal.quiet))
    elif out is None:
        raise InputError(f"say where to write the graph of {source}: --out FILE.onnx")
    else:
        found = unpack_to(source, out)
    before, after = (megabytes(found[name]) for name in ("bytes_before", "bytes"))
    terminal.result(found, lambda: print(f"{found['weights']} weights unpacked: {before} before, {after} now"))


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
    backend: Annotated[
        Literal["onnx", "tensorrt"],
        typer.Option("--backend", help="What runs the model: ONNX graphs, or TensorRT's engines, which need their GPU."),
    ] = "onnx",
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
    with load(artifact, backend=backend) as model:
        if chat or prompt is None:
            Conversation(model, image, options, terminal.seed).hold(terminal, prompt)
        else:
            pieces = model.stream(image, prompt, raw=raw, seed=terminal.seed, **options.model_dump())
            answer_once(terminal, pieces)


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    for name, function in (("export", export), ("unpack", unpack), ("run", run)):
        command(app, name)(function)
