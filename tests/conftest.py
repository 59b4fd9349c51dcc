"""Set before torch and transformers are imported: one thread per test process, and no progress bars of theirs."""

import os
from collections.abc import Iterator

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-warning",
        action="store_true",
        help="every warning is an error, not only those of vlmc's own code; for the versions of requirements/lock.txt",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--every-warning"):
        config.getini("filterwarnings").insert(0, "error")  # before the list in pyproject.toml, so that the list holds


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where dense models lie is noted in a cache folder: that of the tests is their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_plots() -> Iterator[None]:
    """Repair runs by the dozen, and drawing a plot takes as long as a small run: the tests of the plot ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmc.toolchain.repair.reports.can_draw", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the digests of the tests' files out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmc.toolchain.data.file_digests.cache_folder", lambda: folder)
        yield
