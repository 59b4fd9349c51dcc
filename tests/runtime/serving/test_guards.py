"""The key, the number of requests, the size of a body and the time that it takes to arrive."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import openai
import pytest

from tests import pico
from tests.runtime.serving.conftest import Held
from tests.runtime.serving.material import (
    SOON,
    Running,
    Slow,
    answer,
    asked,
    connected,
    data_url,
    received,
    running,
    shown,
    until,
)
from vlmc.runtime.serving import Limits, Served, connections

MESSAGES = shown(data_url(pico.picture(0)))
CHAT = "/v1/chat/completions"


@pytest.mark.integration
def test_only_who_knows_the_key_is_let_in(models: dict[str, Served]) -> None:
    with running(models, key="secret") as server:
        assert server.client("secret").chat.completions.create(model="pico", messages=MESSAGES).choices
        assert server.client("secret").models.list().data
        for key in ("Secret", "secret2", "sécret", "x" * 5000):
            given = {"Authorization": f"Bearer {key}".encode()}
            response = httpx2.get(f"{server.url}/v1/models", headers=given)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
            server.client("x").chat.completions.create(model="pico", messages=MESSAGES)
        for path in ("/", "/health", "/ready", "/metrics"):
            assert httpx2.get(server.url + path).status_code == 200


def test_more_requests_than_places_are_told_to_come_again(held: Held) -> None:
    with httpx2.Client() as client:
        asking = [threading.Thread(target=client.post, args=(held.url + CHAT,), kwargs={"json": asked()}) for _ in range(2)]
        for thread in asking:
            thread.start()
        until(lambda: len(held.batcher.asked) == 2)
        refused = client.post(held.url + CHAT, json=asked())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert client.get(f"{held.url}/v1/models").status_code == 200
        for pending in held.batcher.asked:
            pending.end(answer())
        for thread in asking:
            thread.join(SOON)
    until(lambda: held.application.gate.inside == 0)


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    with running({"pico": Served(Slow())}, Limits(body=2000, arrival=0.3)) as server:
        yield server


@pytest.mark.parametrize("size", [2001, 3_000_000])
def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(small: Running, size: int) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(0, size, 65536):
            yield b" " * min(size, 65536)

    for content in (b" " * size, pieces()):
        response = httpx2.post(small.url + CHAT, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["message"].startswith("the request is too large: the limit is 2,000 bytes")
    assert httpx2.post(small.url + CHAT, content=b" " * 1999).status_code == 400


def test_who_asks_first_whether_to_send_too_much_is_told_at_once(small: Running) -> None:
    with connected(small) as connection:
        connection.sendall(
            b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_arrive_is_not_waited_for(small: Running) -> None:
    with connected(small) as connection:
        connection.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("before", "sent"), [(b"", b""), (b"", b"GET / HTTP/1.1\r\nHos"), (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"G")]
)
def test_a_connection_that_asks_for_nothing_is_closed(
    small: Running, before: bytes, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    with connected(small) as connection:
        if before:
            connection.sendall(before)
            received(connection, b'{"status":"ok"}')
        connection.sendall(sent)
        with suppress(ConnectionResetError):
            assert connection.recv(65536) == b""


def test_what_is_no_http_is_refused(small: Running) -> None:
    with connected(small) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
