"""Arguments that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ARTIFACT = Path("artifact")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, demo, demo-blip2 or smol.")]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder to write the artifact to.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace the artifact that stands there.")]
RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="YAML file of options; flags win over it.")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on where a stopped run of the same command was.")]
