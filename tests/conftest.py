"""Set before torch and transformers are imported: one thread per test process, and no progress bars of theirs."""

import gc
import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"
_numbers = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-warning",
        action="store_true",
        help="every warning is an error, not only those of vlmc's own code; for the versions of requirements/lock.txt",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--every-warning"):
        config.getini("filterwarnings").insert(0, "error")  # before the list in pyproject.toml, so that the list holds


def pytest_collection_finish() -> None:
    """What was imported stays to the end: each of the many collections of garbage has much less to look at without it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter's end clear away everything."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the tests' shared material leaves out of the user's cache."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMC_CACHE", str(folder / "shared"))
        yield folder


@pytest.fixture(autouse=True)
def _own_cache(_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another one left in the cache: digests of files, and where dense models lie."""
    monkeypatch.setenv("VLMC_CACHE", str(_caches / str(next(_numbers))))


@pytest.fixture(scope="session", autouse=True)
def _no_plots() -> Iterator[None]:
    """Repair runs by the dozen, and drawing a plot takes as long as a small run: the tests of the plot ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:  # else nothing that was collected can repair, and importing it takes seconds
            patch.setattr("vlmc.toolchain.repair.training.reports.can_draw", lambda: False)
        yield
