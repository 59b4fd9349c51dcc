"""The verbs that look and measure: verify-sparsity, eval, sweep, inspect, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.toolchain.cli.arguments import ARTIFACT, ArtifactArgument, ModelArgument, RecipeOption
from vlmc.toolchain.cli.options import Terminal, command
from vlmc.toolchain.settings import EvalSettings, SweepSettings


def verify_sparsity(
    terminal: Terminal,
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder, or an ONNX file.")] = ARTIFACT,
    target: Annotated[
        str | None, typer.Option("--target", help="For an ONNX file that vlmc did not write: the pattern.")
    ] = None,
) -> None:
    """Read the weights themselves and check every layer that the manifest promises; exit 1 where one does not hold."""
    from vlmc.toolchain.tables import show_reports
    from vlmc.toolchain.verify import raise_first_violation, verify_path

    reports = verify_path(artifact, target)
    data = {"holds": not any(report.violation for report in reports), "layers": [vars(report) for report in reports]}
    terminal.result(data, lambda: show_reports(reports))
    raise_first_violation(reports)


def evaluate(
    options: EvalSettings,
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, or a dense model.")] = str(ARTIFACT),
    beside: Annotated[
        list[str] | None, typer.Option("--beside", help="Another model to measure in the same run; may be repeated.")
    ] = None,
) -> None:
    """Accuracy on a data set, overall and by kind of question, dense beside compressed."""
    from vlmc.toolchain.evaluate.compare import compare
    from vlmc.toolchain.progress import Progress
    from vlmc.toolchain.tables import show_accuracies

    found = compare(model, beside or [], options, Progress(quiet=terminal.quiet))
    terminal.result(found, lambda: show_accuracies(found))


def sweep(
    options: SweepSettings,
    terminal: Terminal,
    model: ModelArgument = "demo",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write results and figures to.")] = Path("split-study"),
    recipe: RecipeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Drop the study that stands there.")] = False,
) -> None:
    """Where sparsity costs least: vision's and language's shares of a fixed sum, and one tower pruned or both.

    Started again after a stop, it goes on where it was.
    """
    from vlmc.toolchain.data.drawn import with_usual_data
    from vlmc.toolchain.models import Checkpoint
    from vlmc.toolchain.progress import Progress
    from vlmc.toolchain.study import SplitStudy
    from vlmc.toolchain.tables import show_study

    source = Checkpoint.find(model)
    study = SplitStudy(with_usual_data(options, source), terminal.seed, Progress(quiet=terminal.quiet))
    found = study.run(source, out, force=force).model_dump(mode="json")
    terminal.result(found, lambda: show_study(found, out))


def inspect(terminal: Terminal, artifact: ArtifactArgument = ARTIFACT) -> None:
    """What an artifact holds: history, sparsity, bytes, graphs, measured accuracy."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.inspect import overview, show_overview

    found = overview(Artifact.open(artifact))
    terminal.result(found, lambda: show_overview(found))


def doctor(terminal: Terminal) -> None:
    """What this machine can do: versions, providers, and how to get what is missing."""
    from vlmc.toolchain.doctor import examine, show_findings

    found = examine()
    terminal.result(found, lambda: show_findings(found))


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    looks = (("verify-sparsity", verify_sparsity), ("inspect", inspect), ("doctor", doctor))
    for name, function in (*looks, ("eval", evaluate), ("sweep", sweep)):
        command(app, name)(function)
