"""The verbs that make artifacts: compress, prune, repair, merge."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmc.runtime.errors import InputError
from vlmc.toolchain.builtin import with_usual_data
from vlmc.toolchain.cli.arguments import (
    ARTIFACT,
    ArtifactArgument,
    DenseOption,
    ForceFlag,
    ModelArgument,
    OutOption,
    RecipeOption,
    ResumeFlag,
)
from vlmc.toolchain.cli.options import Terminal, command
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings

if TYPE_CHECKING:
    from vlmc.runtime.artifact import Artifact


def compress(
    options: CompressSettings,
    terminal: Terminal,
    model: ModelArgument = "demo",
    out: OutOption = ARTIFACT,
    recipe: RecipeOption = None,
    force: ForceFlag = False,
) -> None:
    """Prune, repair, merge and verify in one go. After an interruption, the same command resumes."""
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.stages.compress import Compress

    _check_alone("compress")
    source = SavedModel.find(model)
    chain = Compress(with_usual_data(options, source.origin), terminal.seed, Progress(quiet=terminal.quiet))
    _report(chain.run(source, out, force=force), terminal)


def prune(
    options: PruneSettings,
    terminal: Terminal,
    model: ModelArgument = "demo",
    out: OutOption = Path("pruned"),
    resume: ResumeFlag = False,
    recipe: RecipeOption = None,
    force: ForceFlag = False,
) -> None:
    """Prune a dense model to a sparsity pattern."""
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.stages.prune import Prune

    source = SavedModel.find(model)
    options = with_usual_data(options, source.origin)
    stage = Prune(options, terminal.seed, resume=resume, progress=Progress(quiet=terminal.quiet))
    _report(stage.run(source, out, force=force), terminal)


def repair(
    options: RepairSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = Path("pruned"),
    out: OutOption = Path("adapted"),
    resume: ResumeFlag = False,
    dense: DenseOption = None,
    recipe: RecipeOption = None,
    force: ForceFlag = False,
) -> None:
    """Train adapters that recover a pruned model's accuracy; merge puts them into the weights.

    To use several GPUs or machines: accelerate launch -m vlmc.toolchain.cli repair ..., or torchrun; with --use_fsdp
    --fsdp_version 2 the frozen weights are sharded.
    """
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.stages.repair import Repair

    source = SavedModel.find(str(artifact))
    options = with_usual_data(options, source.origin)
    stage = Repair(options, seed=terminal.seed, resume=resume, dense=dense, progress=Progress(quiet=terminal.quiet))
    _report(stage.run(source, out, force=force), terminal)


def merge(
    terminal: Terminal,
    artifact: Annotated[
        Path | None, typer.Argument(metavar="ARTIFACT", help=r"A repaired or a pruned artifact. \[default: adapted]")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option("--adapter", metavar="ARTIFACT", help="A repaired artifact whose adapter is added; may be repeated."),
    ] = None,
    out: OutOption = ARTIFACT,
    force: ForceFlag = False,
) -> None:
    """Merge adapters into the weights: the artifact's own, and those named with --adapter, added up.

    Before anything is written, it is proven that the sparsity pattern holds and that the logits stay the same.
    """
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.stages.merge import Merge

    _check_alone("merge")
    others = list(adapter or [])
    base = artifact or (others.pop(0) if others else Path("adapted"))
    _report(Merge(others=others).run(SavedModel.find(str(base)), out, force=force), terminal)


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    for name, function in (("compress", compress), ("prune", prune), ("repair", repair), ("merge", merge)):
        command(app, name)(function)


def _check_alone(verb: str) -> None:
    """Raise InputError where a launcher has started several of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"vlmc {verb} runs in one process; prune and repair can use several")


def _report(artifact: "Artifact", terminal: Terminal) -> None:
    from vlmc.toolchain.reporting.inspection import overview, show_overview

    found = overview(artifact)
    terminal.result(found, lambda: show_overview(found))
