"""Artifacts for tests: a checkpoint that is pruned by magnitude, the quickest way there is, and its graphs."""

from pathlib import Path

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.settings import ExportSettings, PruneSettings
from vlmc.toolchain.stages.export import export
from vlmc.toolchain.stages.prune import Prune


def pruned(checkpoint: Path, destination: Path, target: str = "2:4") -> Artifact:
    """Prune every layer of both towers of a checkpoint and write the artifact."""
    options = PruneSettings(target=target, method="magnitude", calibration=1)
    return Prune(options).run(Checkpoint.find(str(checkpoint)), destination)


def exported(family: str, base: Path) -> Path:
    """Return the family's pico artifact with its ONNX graphs, made once in `base`: pytest's folder for the whole run."""
    folder = base / f"exported-{family}"
    if not folder.exists():
        checkpoint = pico.save(family, base / f"pico-{family}")
        export(pruned(checkpoint, folder), ExportSettings(), "onnx", Progress(quiet=True))
    return folder
