"""The material and the children of these tests, made once for each process of pytest; the material once for all of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.children import Children
from tests.fuzz.material import Material


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="session")
def material(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with Children(own / "home") as children:
        yield Material(shared / "fuzz-material", children)


@pytest.fixture(scope="session")
def box(own: Path) -> Path:
    """Return the folder for sandboxes."""
    return own / "box"
