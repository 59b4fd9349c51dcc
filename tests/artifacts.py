"""Artifacts for tests: a model that is pruned by magnitude, the quickest way there is, and its graphs."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings, PruneSettings
from vlmc.toolchain.stages.export import Export
from vlmc.toolchain.stages.prune import Prune

SLOW = {"smolvlm", "internvl"}  # idefics3 is the build of the one, and has the tiles of the other
DEPLOYABLE = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in pico.DEPLOYABLE]
"""The families that are exported, for tests that export them; those that tell little more are slow tests."""


def pruned(source: Path, destination: Path, target: str = "2:4") -> Artifact:
    """Prune every layer of both towers of a model and write the artifact."""
    options = PruneSettings(target=target, method="magnitude", calibration=1)
    return Prune(options).run(SavedModel.find(str(source)), destination)


def exported(family: str, base: Path) -> Path:
    """Return the family's pico artifact with its ONNX graphs, made once for all of the run's processes.

    `base` is pytest's folder for the whole run, or for a worker's share of it.
    """
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / f"exported-{family}"
    with FileLock(shared / f"{family}.lock"):
        if not folder.exists():
            making = shared / f"making-{family}"
            Export(ExportSettings(), "onnx", Progress(quiet=True)).run(pruned(_dense(family, shared), making))
            making.rename(folder)
    return folder


def _dense(family: str, base: Path) -> Path:
    try:
        return pico.save(family, base / f"pico-{family}")
    except ImportError as error:  # transformers 5.17 has no image processor for Idefics3 that does without torchvision
        pytest.skip(str(error).strip().splitlines()[0])
