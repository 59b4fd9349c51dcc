"""The small module, traced once for all tests that only read its graph."""

from pathlib import Path

import pytest

from tests.artifacts import share_operators
from tests.exporters.material import small
from vlmc.exporters.onnx.tracing import trace


@pytest.fixture(scope="session", autouse=True)
def _shared_operators() -> None:
    share_operators()


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, not labelled; to be copied before it is changed."""
    path = tmp_path_factory.mktemp("traced") / "small.onnx"
    trace(small(), path, "fp32")
    return path
