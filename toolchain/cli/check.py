"""The verbs that check, measure and tell: verify-sparsity, eval, bench, report, sweep, inspect, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.builtin import with_usual_data
from vlmc.toolchain.cli.arguments import (
    ARTIFACT,
    ArtifactArgument,
    DenseOption,
    DownloadFlag,
    ModelArgument,
    RecipeOption,
    TrustFlag,
)
from vlmc.toolchain.cli.options import NO_VALUE, OUTPUT, Terminal, command
from vlmc.toolchain.settings import BenchSettings, EvalSettings, SweepSettings


def verify_sparsity(
    terminal: Terminal,
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder, an ONNX file, or any model's folder.")
    ] = ARTIFACT,
    target: Annotated[
        str | None, typer.Option("--target", metavar="TEXT", help="Sparsity to check, for a model that vlmc did not write.")
    ] = None,
) -> None:
    """Check the stored weights of every pruned layer against its pattern; exit 1 if one breaks it.

    Weights that are NaN or infinite, and files of an artifact that changed since it was written, fail too.
    In a model that vlmc did not write, every layer that vlmc would prune is checked against --target. In an ONNX file that
    does not say what it promises, every weight is checked against --target, or against the pattern that it seems to have.
    """
    from vlmc.toolchain.reporting.tables import show_reports
    from vlmc.toolchain.reporting.verification import damages, raise_first_violation, verify_path

    reports = verify_path(artifact, target)
    damaged = damages(artifact)
    holds = not damaged and not any(report.violation for report in reports)
    data = {"holds": holds, "layers": [vars(report) for report in reports], "damages": damaged}
    terminal.result(data, lambda: show_reports(reports, damaged))
    _tell_of_card(artifact, terminal)
    raise_first_violation(reports)
    if damaged:
        more = f" ({len(damaged)} such findings)" if len(damaged) > 1 else ""
        raise CheckFailed(f"{artifact}: {damaged[0]}{more}: copy the artifact again or create it again")


def evaluate(
    options: EvalSettings,
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, or a dense model.")] = str(ARTIFACT),
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", metavar="MODEL", help="Another model to measure in the same run; may be repeated."),
    ] = None,
    dense: DenseOption = None,
    download: DownloadFlag = False,
    trust: TrustFlag = False,
) -> None:
    """Measure accuracy on a data set, overall and by kind of question, beside the dense model."""
    from vlmc.toolchain.evaluate.compare import compare
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.reporting.tables import show_accuracies

    progress = Progress(quiet=terminal.quiet)
    found = compare(model, beside or [], options, progress, dense=dense, download=download, trust=trust)
    terminal.result(found, lambda: show_accuracies(found))


def bench(
    options: BenchSettings,
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", rich_help_panel=OUTPUT, help="Folder to write table and plot to."),
    ] = Path("bench"),
    dense: DenseOption = None,
    download: DownloadFlag = False,
    trust: TrustFlag = False,
) -> None:
    """Time the dense model, the sparse one with an adapter apart, merged and packed: vision, prefill, decode, whole answers.

    All are built from the artifact and the dense model, and take turns in one run.
    """
    from vlmc.runtime.artifact import Artifact
    from vlmc.toolchain.bench.bench import Bench
    from vlmc.toolchain.bench.showing import check, record, show, write
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.origin import find_dense
    from vlmc.toolchain.study.figures import require

    require()
    check(out)
    opened = Artifact.open(artifact)
    twin = find_dense(opened, dense, download=download, trust=trust)
    progress = Progress(quiet=terminal.quiet)
    found = Bench(opened, twin, options, progress).run()
    write(found, out)
    record(opened, found, progress)
    terminal.result(found, lambda: show(found, out))


def report(
    terminal: Terminal,
    artifact: ArtifactArgument = ARTIFACT,
    dense: DenseOption = None,
    download: DownloadFlag = False,
    trust: TrustFlag = False,
) -> None:
    """Write one page on an artifact, from its history and reports: what was done, what came of it, where it hurts."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.runtime.errors import InputError
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.origin import find_dense
    from vlmc.toolchain.reporting.layers import measure_layers
    from vlmc.toolchain.reporting.paths import PAGE
    from vlmc.toolchain.reporting.report import write_report

    opened, twin = Artifact.open(artifact), None
    try:
        twin = find_dense(opened, dense, download=download, trust=trust)
    except InputError as error:
        if dense is not None:
            raise
        Progress(quiet=terminal.quiet).notice(f"the report does not tell how far weights moved: {error}")
    write_report(opened, measure_layers(opened, twin))
    terminal.result({"report": str(artifact / PAGE)}, lambda: typer.echo(str(artifact / PAGE)))


def sweep(
    options: SweepSettings,
    terminal: Terminal,
    model: ModelArgument = "demo",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", rich_help_panel=OUTPUT, help="Folder to write results and figures to."),
    ] = Path("split-study"),
    recipe: RecipeOption = None,
    force: Annotated[
        bool, typer.Option("--force", metavar=NO_VALUE, rich_help_panel=OUTPUT, help="Replace an existing study.")
    ] = False,
    trust: TrustFlag = False,
) -> None:
    """Find where sparsity costs least: split a fixed sum between vision and language, prune one tower or both.

    After an interruption, the same command resumes.
    """
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.reporting.tables import show_study
    from vlmc.toolchain.study import SplitStudy

    source = SavedModel.find(model, trust=trust)
    study = SplitStudy(with_usual_data(options, source.origin), terminal.seed, Progress(quiet=terminal.quiet))
    found = study.run(source, out, force=force).model_dump(mode="json")
    terminal.result(found, lambda: show_study(found, out))


def inspect(
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, or a dense model.")] = str(ARTIFACT),
    trust: TrustFlag = False,
) -> None:
    """Show what an artifact holds: history, sparsity, sizes, graphs, accuracy; or what a dense model is."""
    from vlmc.toolchain.reporting.inspection import look, show

    found = look(model, trust=trust)
    terminal.result(found, lambda: show(found))
    _tell_of_card(Path(model), terminal)


def doctor(
    terminal: Terminal,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", metavar=NO_VALUE, help="Build two 2:4 layers with TensorRT and say what it chose.")
    ] = False,
) -> None:
    """Show what this machine can do: versions, providers, and how to install what is missing."""
    from vlmc.toolchain.machine.doctor import examine, show_findings

    if tensorrt:
        from vlmc.toolchain.machine.tensorrt import show_trial, try_tensorrt

        trial = try_tensorrt()
        terminal.result(trial, lambda: show_trial(trial))
        return
    found = examine()
    terminal.result(found, lambda: show_findings(found))


def _tell_of_card(folder: Path, terminal: Terminal) -> None:
    """Say on stderr if an artifact's model card is not the one that vlmc wrote."""
    from vlmc.runtime.artifact import Artifact
    from vlmc.runtime.artifact.folder import MANIFEST
    from vlmc.toolchain.machine.progress import Progress

    if (folder / MANIFEST).is_file():
        Progress(quiet=terminal.quiet).notice(Artifact.open(folder).card_note)


def register(app: typer.Typer) -> None:
    """Add these verbs to the app."""
    looks = (("verify-sparsity", verify_sparsity), ("inspect", inspect), ("doctor", doctor))
    for name, function in (*looks, ("eval", evaluate), ("bench", bench), ("report", report), ("sweep", sweep)):
        command(app, name)(function)
