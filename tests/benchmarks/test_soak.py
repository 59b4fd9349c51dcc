"""The soak test's clients do what they are for, its mutations are mutations, and its bars fail where they should."""

import asyncio
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import soak
from PIL import Image
from storm import hostile
from storm.clients import CLIENTS, Target
from storm.exchange import BROKEN, LEFT, Came, judged
from storm.storming import Tally, learn

from tests.artifacts import exported
from tests.runtime.serving.material import Running, running
from vlmc.runtime.serving import Limits, opened


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("llava", tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[Running]:
    with opened([artifact], threads=1) as models, running(models, Limits(body=2_000_000)) as started:
        yield started


@pytest.fixture(scope="module")
def target(server: Running, artifact: Path) -> Target:
    host, _, port = server.url.removeprefix("http://").partition(":")
    bare = Target(host, int(port), artifact.name, {})
    return Target(host, int(port), artifact.name, learn(bare, 2))


EXPECTED = {
    "whole answer": {200},
    "streamed answer": {200},
    "client that vanishes": {LEFT},
    "slow reader": {200},
    "slow sender": {200},
    "half a request": {LEFT},
    "malformed body": {200, 400, 404, 422},
    "hostile image": {200, 422},
    "body that is too large": {413},
    "no HTTP": {400},
    "look at the server": {200, 404},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
def test_every_kind_of_client_gets_what_it_should(target: Target, kind: str) -> None:
    for seed in range(4):
        came = asyncio.run(CLIENTS[kind][0](target, Random(seed)))
        right = None
        if isinstance(came, tuple):
            came, right = came[0], target.right[came[1]]
        assert came.clear, came
        assert came.status in EXPECTED[kind]
        assert right is None or came.text == right


def test_mutations_change_files_and_most_are_refused_or_read() -> None:
    good = hostile.encoded(hostile.picture(0))
    found = {hostile.mutated(Random(seed), good) for seed in range(50)}
    assert len(found - {good}) > 40
    bodies = [hostile.body(Random(seed), {"model": "x", "messages": []}) for seed in range(50)]
    assert len(set(bodies)) > 30


def test_a_png_that_lies_says_what_it_was_told() -> None:
    with Image.open(io.BytesIO(hostile.lying_png(5000, 7))) as image:
        assert image.size == (5000, 7)


@pytest.mark.parametrize(
    ("received", "status", "clear"),
    [
        (b"", BROKEN, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", BROKEN, False),
        (b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\n\r\n" + b'{"error":{"message":"x"}}', 500, False),
        (b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\n\r\n" + b'{"error":{"message":"x"}}', 400, True),
        (b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\n\r\n{}", 400, False),
        (b'HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\ndata: {"choices":[]}\n\n', 200, False),
        (b'HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\ndata: {"choices":[]}\n\ndata: [DONE]\n\n', 200, True),
        (b'HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\ndata: {"error":{}}\n\n', 200, True),
    ],
)
def test_responses_are_judged(received: bytes, status: int | str, clear: bool) -> None:
    came = judged(received, 1.0)
    assert (came.status, came.clear) == (status, clear)


def found(**changed: object) -> soak.Found:
    return soak.Found(Tally(), **({"before": 100, "after": 104, "exit_code": 0} | changed))


def test_bars_hold_and_fail_where_they_should() -> None:
    assert all(bar.holds for bar in soak.bars(found()))
    wrong = [{"after": 106}, {"crashes": 1}, {"left": 1}, {"exit_code": -9}, {"exit_code": None}, {"changed": 2}]
    assert all(sum(not bar.holds for bar in soak.bars(found(**changed))) == 1 for changed in wrong)
    bad = found()
    bad.tally.add("whole answer", Came(500, False, 1.0), None)
    bad.tally.add("whole answer", Came(200, True, 1.0, "other"), "right")
    assert [bar.value for bar in soak.bars(bad)][1:4] == [1, 1, 1]


@pytest.mark.slow
def test_a_short_soak_holds_all_bars_but_memory(artifact: Path, tmp_path: Path) -> None:
    """A pico model's server is so small that a thread more is five percent."""
    shutil.copytree(artifact, tmp_path / "artifact")
    found = soak.run(tmp_path / "artifact", tmp_path / "log", 6, 8, 0, 1)
    missed = [bar for bar in soak.bars(found) if not bar.holds and not bar.name.startswith("memory")]
    assert missed == [], json.dumps([str(key) for key in found.tally.unclear])
    assert sum(found.tally.statuses.values()) > 30
