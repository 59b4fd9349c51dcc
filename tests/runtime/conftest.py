"""An exported pico artifact of each family, and the model that it came from."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from tests import pico
from tests.artifacts import exported
from vlmc.runtime.artifact import Serving
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.models import Checkpoint


@dataclass(frozen=True)
class Reference:
    """An artifact with graphs, and what transformers loads from it."""

    folder: Path
    model: nn.Module
    encoder: Encoder
    serving: Serving


@pytest.fixture(scope="session", params=list(pico.DEPLOYABLE))
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    checkpoint = Checkpoint.find(str(exported(request.param, tmp_path_factory.getbasetemp())))
    assert checkpoint.artifact is not None
    model = checkpoint.load()
    encoder = Encoder(checkpoint.load_processor(), checkpoint.family, model)
    return Reference(checkpoint.folder, model, encoder, checkpoint.artifact.manifest.need_serving("run"))
