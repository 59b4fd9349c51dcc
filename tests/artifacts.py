"""Artifacts for tests: a model pruned by magnitude, the quickest way, and its graphs."""

import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings, PruneSettings
from vlmc.toolchain.stages.export import Export
from vlmc.toolchain.stages.prune import Prune

SLOW = set(pico.DEPLOYABLE) - {"llava", "blip-2"}
DEPLOYABLE = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in pico.DEPLOYABLE]
"""The families that are exported, for tests that export them; two that export in a few seconds, the others in slow tests."""

DEPTHS = {
    "llava": {},
    "blip-2": {"vision_config": 1, "qformer_config": 1, "text_config": 1},
    "qwen2_5_vl": {"vision_config": 2, "text_config": 1},  # one block with windows, one without
    "qwen3_vl": {"vision_config": 2, "text_config": 2},  # two give features to the language model's first two
    "gemma3": {"vision_config": 1},  # blocks with a window, and without
    "paligemma2": {"vision_config": 1},  # the same
    "blip-2-t5": {"vision_config": 1, "qformer_config": 1},
    "instructblip": {"vision_config": 1, "qformer_config": 1, "text_config": 1},
    "instructblip-t5": {"vision_config": 1, "qformer_config": 1},
}
"""Blocks of those models that are exported: tracing takes a second for each, and a second one tells nothing new.

LLaVA keeps all of its own: a vision tower that is not read to its end, caches of several blocks."""


def pruned(model: Path, destination: Path, target: str = "2:4", *, trust: bool = False) -> Artifact:
    """Prune every layer of both towers of a model and write the artifact."""
    options = PruneSettings(target=target, method="magnitude", calibration=1)
    return Prune(options).run(SavedModel.find(str(model), trust=trust), destination)


@cache
def share_operators() -> None:
    """Let torch's exporter keep its table of operators: it makes that anew for each graph, longer than a small one takes."""
    with suppress(ImportError, AttributeError):  # the exporter is none of torch's public modules
        registry = import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))


def exported(family: str, base: Path) -> Path:
    """Return the family's pico artifact with its ONNX graphs, made once for all of the run's processes.

    While another process makes it, this one makes those of another family, which some test will ask for.
    `base` is pytest's folder for the whole run, or for a worker's share of it.
    """
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    for name in (family, *(name for name in pico.DEPLOYABLE if name not in SLOW)):
        with suppress(Timeout, pytest.skip.Exception):
            _export(name, shared, wait=0)
        if _folder(family, shared).exists():
            break
    _export(family, shared, wait=-1)
    return _folder(family, shared)


def _folder(family: str, shared: Path) -> Path:
    return shared / f"exported-{family}"


def _export(family: str, shared: Path, *, wait: float) -> None:
    """Make the family's artifact, unless it is there; wait so many seconds for another process, -1 for ever."""
    with FileLock(shared / f"{family}.lock", timeout=wait):
        if not _folder(family, shared).exists():
            share_operators()
            making = shared / f"making-{family}"
            made = pruned(dense(family, shared / f"pico-{family}"), making)
            Export(ExportSettings(), "onnx", Progress(quiet=True)).run(made)
            making.rename(_folder(family, shared))


def dense(family: str, folder: Path, seed: int = 0) -> Path:
    """Write the model that the family's exported artifact is made of."""
    return pico.save(family, folder, seed=seed, depths=DEPTHS.get(family, {"vision_config": 1, "text_config": 1}))
