"""Arguments that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from vlmc.toolchain import builtin
from vlmc.toolchain.cli.options import NO_VALUE, OUTPUT
from vlmc.toolchain.settings import advanced

ARTIFACT = Path("artifact")
RARE_PANEL = advanced("Options")
_BUILT_IN = " or ".join(f"{model.name} ({model.title})" for model in builtin.models().values())

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=f"A folder, a hub id, or {_BUILT_IN}.")]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write the artifact to.", rich_help_panel=OUTPUT)
]
ForceFlag = Annotated[
    bool, typer.Option("--force", metavar=NO_VALUE, help="Replace an existing artifact.", rich_help_panel=OUTPUT)
]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="YAML file of options, or ressa-paper; flags override it, and --no-FLAG turns off a flag that it sets.",
        rich_help_panel=OUTPUT,
    ),
]
ResumeFlag = Annotated[
    bool,
    typer.Option(
        "--resume", metavar=NO_VALUE, help="Resume an interrupted run of the same command.", rich_help_panel=OUTPUT
    ),
]
DenseOption = Annotated[
    str | None,
    typer.Option("--dense", metavar="MODEL", help="The dense model's folder or hub id, if vlmc cannot find it."),
]
TrustFlag = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        metavar=NO_VALUE,
        help="Run Python code that the model brings (auto_map); it can do anything that you can, so read it first.",
        rich_help_panel=RARE_PANEL,
    ),
]
DownloadFlag = Annotated[
    bool,
    typer.Option(
        "--allow-download",
        metavar=NO_VALUE,
        help="Look on the hub for the dense model that the artifact names.",
        rich_help_panel=RARE_PANEL,
    ),
]
