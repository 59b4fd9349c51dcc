"""Who goes away, or takes too long, frees the place; a stream that fails in the middle says so."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx2
import openai
import pytest

from tests import pico
from tests.runtime.serving.conftest import Held
from tests.runtime.serving.material import SOON, Running, Slow, answer, asked, data_url, received, running, shown, until
from vlmc.runtime.batching import Pending
from vlmc.runtime.errors import Cancelled, CheckFailed, Closed
from vlmc.runtime.serving import Limits, Served

MESSAGES = shown(data_url(pico.picture(0)))


def connect(url: str, body: dict[str, object]) -> socket.socket:
    """Send a request and return its connection."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_while_it_waits_frees_its_place(held: Held, stream: bool) -> None:
    with connect(held.url, asked(stream=stream)):
        until(lambda: len(held.batcher.asked) == 1)
    until(lambda: held.batcher.asked[0].done)
    with pytest.raises(Cancelled):
        held.batcher.asked[0].answer()
    until(lambda: held.application.gate.inside == 0)


def test_a_client_that_vanishes_in_the_middle_of_a_stream_frees_its_place(held: Held) -> None:
    with connect(held.url, asked(stream=True)) as connection:
        until(lambda: len(held.batcher.asked) == 1)
        held.batcher.asked[0].add("one ")
        held.batcher.asked[0].tell()
        assert b"one " in received(connection, b"one ")
    until(lambda: held.batcher.asked[0].done)
    until(lambda: held.application.gate.inside == 0)
    assert 'vlmc_answers_total{end="gone",model="pico"} 1.0' in httpx2.get(f"{held.url}/metrics").text


def test_a_client_that_vanishes_while_its_images_are_read_frees_its_place() -> None:
    class Reading(Slow):
        reading, read = Event(), Event()

        def ask(self, *given: object) -> object:
            self.reading.set()
            assert self.read.wait(SOON)
            return super().ask(*given)

    batcher = Reading()
    with running({"pico": Served(batcher)}) as server:
        with connect(server.url, asked()):
            assert batcher.reading.wait(SOON)
        until(lambda: server.application.gate.inside == 0)
        batcher.read.set()
        until(lambda: len(batcher.asked) == 1 and batcher.asked[0].done)


def test_a_client_that_sends_half_a_request_is_nothing(held: Held) -> None:
    connection = connect(held.url, asked())
    connection.close()
    host, port = held.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        until(lambda: held.application.gate.inside == 1)
    until(lambda: held.application.gate.inside == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(stream: bool) -> None:
    batcher = Slow()
    with running({"pico": Served(batcher)}, Limits(seconds=0.2)) as server:
        with pytest.raises(openai.InternalServerError, match=r"not complete after 0\.2 seconds") as late:
            server.client().chat.completions.create(model="pico", messages=MESSAGES, stream=stream)
        assert late.value.status_code == 504
        assert batcher.asked[0].done
        assert 'vlmc_answers_total{end="late",model="pico"} 1.0' in httpx2.get(f"{server.url}/metrics").text


def in_the_middle(server: Running, batcher: Slow, then: Callable[[Pending], object]) -> str:
    """Return what a stream has when something happens after its first piece."""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx2.post, f"{server.url}/v1/chat/completions", json=asked(stream=True), timeout=SOON)
        until(lambda: len(batcher.asked) == 1)
        batcher.asked[0].add("one ")
        batcher.asked[0].tell()
        then(batcher.asked[0])
        return asking.result(SOON).text


def test_a_stream_that_takes_too_long_ends_with_an_error() -> None:
    batcher = Slow()
    with running({"pico": Served(batcher)}, Limits(seconds=0.5)) as server:
        said = in_the_middle(server, batcher, lambda pending: None)
    assert "one " in said
    assert '"code":"timeout"' in said
    assert "[DONE]" not in said
    assert batcher.asked[0].done


def test_a_stream_whose_batcher_is_closed_ends_with_an_error(held: Held) -> None:
    said = in_the_middle(held, held.batcher, lambda pending: pending.end(Closed("closed")))
    assert '"code":"closing"' in said
    assert "[DONE]" not in said


def test_a_stream_whose_graphs_fail_ends_with_an_error_that_tells_nothing(held: Held) -> None:
    said = in_the_middle(held, held.batcher, lambda pending: pending.end(CheckFailed("/secret")))
    assert '"code":"internal_error"' in said
    assert "secret" not in said


def test_a_stream_ends_with_the_last_piece(held: Held) -> None:
    said = in_the_middle(held, held.batcher, lambda pending: pending.end(answer()))
    assert '"finish_reason":"stop"' in said
    assert said.endswith("data: [DONE]\n\n")
