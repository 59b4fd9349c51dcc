"""An exported pico artifact of each family, and the model that it came from."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from tests.artifacts import DEPLOYABLE, exported
from vlmc.runtime.deployment import Deployment
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.models.saved import SavedModel


@dataclass(frozen=True)
class Reference:
    """An artifact with graphs, and what transformers loads from it."""

    folder: Path
    model: nn.Module
    encoder: Encoder
    deployment: Deployment


@pytest.fixture(scope="session", params=["llava", "blip-2", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One with images before the text, one with images in it, one that is asked through its own processor."""
    return refer(request.param, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", params=DEPLOYABLE)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Every family that is exported."""
    return refer(request.param, tmp_path_factory.getbasetemp())


def refer(family: str, base: Path) -> Reference:
    """Load a family's exported pico artifact in torch, too."""
    saved = SavedModel.find(str(exported(family, base)))
    assert saved.artifact is not None
    model = saved.load()
    encoder = Encoder(saved.load_processor(), saved.family, model)
    deployment = saved.artifact.deployment("onnx")
    assert deployment is not None
    return Reference(saved.folder, model, encoder, deployment)
