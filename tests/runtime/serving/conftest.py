"""A server of a pico artifact, shared by all tests, and one whose answers come when a test says so."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.artifacts import exported
from tests.runtime.serving.material import Running, Slow, running
from vlmc.runtime.serving import Limits, Served, opened


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("llava", tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def models(artifact: Path) -> Iterator[dict[str, Served]]:
    with opened([artifact], threads=1) as found:
        yield {"pico": next(iter(found.values()))}


@pytest.fixture(scope="session")
def server(models: dict[str, Served]) -> Iterator[Running]:
    with running(models, Limits(body=1_000_000)) as started:
        yield started


@dataclass
class Held(Running):
    """A server whose model answers when a test says so."""

    batcher: Slow


@pytest.fixture
def held() -> Iterator[Held]:
    batcher = Slow()
    with running({"pico": Served(batcher)}, Limits(requests=2)) as started:
        yield Held(started.url, started.application, started.server, batcher)
        for pending in batcher.asked:
            pending.cancel()
