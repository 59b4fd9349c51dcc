"""Images from addresses: of the public internet alone, whatever names, redirects and name servers say."""

import asyncio
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest

from tests import pico
from tests.runtime.serving.material import asked, running, shown
from vlmc.runtime.errors import InputError
from vlmc.runtime.serving import Served
from vlmc.runtime.serving.remote import Address, fetch, is_public

FILE = io.BytesIO()
pico.picture(0).save(FILE, "png")
IMAGE = FILE.getvalue()


def only_first(address: Address) -> bool:
    """Allow 127.0.0.1 as if it were public; 127.0.0.2 stands for what is not."""
    return str(address) == "127.0.0.1"


@contextmanager
def site() -> Iterator[tuple[str, list[str]]]:
    """Run a web server on all of loopback; yield its port, and the paths that it was asked for."""
    asked_for: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_for.append(f"{self.headers['Host']}{self.path}")
            target = self.path.partition("?")[2]
            self.send_response(302 if target else 404 if self.path == "/none" else 200)
            if target:
                self.send_header("Location", target)
            self.end_headers()
            if self.path == "/slow":
                threading.Event().wait(1)
            self.wfile.write(b"x" * 100_000 if self.path == "/large" else IMAGE)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield str(server.server_port), asked_for
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(url: str, most: int = 50_000, seconds: float = 10.0) -> bytes:
    return asyncio.run(fetch(url, most, seconds, only_first))


PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("255.255.255.255", "224.0.0.1", "192.0.2.1", "240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd12::1"),
    *("ff02::1", "fec0::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    "2001:0:7f00:1::",
)
REFUSED = r"is no address of the public internet|cannot be fetched"


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0", "localhost."]
)
def test_no_spelling_of_loopback_is_connected_to(host: str) -> None:
    with site() as (port, asked_for):
        with pytest.raises(InputError, match=REFUSED):
            asyncio.run(fetch(f"http://{host}:{port}/", 1000))
        assert asked_for == []


def test_an_image_is_fetched_and_redirects_are_followed() -> None:
    with site() as (port, asked_for):
        assert get(f"http://127.0.0.1:{port}/a.png") == IMAGE
        assert get(f"http://user:word@127.0.0.1:{port}/a?/b.png") == IMAGE
        assert asked_for == [f"127.0.0.1:{port}{path}" for path in ("/a.png", "/a?/b.png", "/b.png")]


def test_a_redirect_leads_to_no_private_network() -> None:
    with site() as (port, asked_for):
        with pytest.raises(InputError, match=r"127\.0\.0\.2 is no address of the public internet"):
            get(f"http://127.0.0.1:{port}/a?http://127.0.0.2:{port}/b.png")
        for target in ("file:///etc/passwd", "ftp://127.0.0.1/", "gopher:x", "http://[::1"):
            with pytest.raises(InputError, match=REFUSED):
                get(f"http://127.0.0.1:{port}/a?{target}")
        assert all(path.startswith("127.0.0.1") for path in asked_for)


def test_redirects_without_end_are_given_up() -> None:
    with site() as (port, asked_for):
        with pytest.raises(InputError, match="more than 3 redirects"):
            get(f"http://127.0.0.1:{port}/a?a?a?a?a?a")
        assert len(asked_for) == 4


def test_a_name_is_looked_up_once_and_that_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers with a public address first and a private one later gets nowhere."""
    looked_up: list[str] = []

    def answer(host: str, port: int, *given: Any, **more: Any) -> list[Any]:
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with site() as (port, asked_for):
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        assert get(f"http://rebinds.example:{port}/a.png") == IMAGE
        assert looked_up[0] == "rebinds.example"
        assert looked_up.count("rebinds.example") == 1
        assert asked_for == [f"rebinds.example:{port}/a.png"]


def test_a_name_with_a_private_address_among_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: found)
    with pytest.raises(InputError, match=r"both\.example is no address of the public internet"):
        get("http://both.example/a.png")


@pytest.mark.parametrize(
    ("path", "said"), [("/none", "its server answers 404"), ("/large", "too large: the limit is 50,000 bytes")]
)
def test_what_is_no_image_to_take_is_told(path: str, said: str) -> None:
    with site() as (port, _), pytest.raises(InputError, match=said):
        get(f"http://127.0.0.1:{port}{path}")


def test_what_takes_too_long_is_given_up() -> None:
    with site() as (port, _), pytest.raises(InputError, match=r"did not arrive within 0\.2 seconds"):
        get(f"http://127.0.0.1:{port}/slow", seconds=0.2)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://ex\u00e4mple.org/", "http://a" + "b" * 300]
)
def test_what_cannot_be_connected_to_is_told(url: str) -> None:
    with pytest.raises(InputError, match=REFUSED):
        get(url)


def test_the_server_fetches_images_where_it_may(models: dict[str, Served]) -> None:
    with site() as (port, _), running(models, remote=True, allowed=only_first) as server:

        def post(url: str) -> httpx2.Response:
            return httpx2.post(f"{server.url}/v1/chat/completions", json=asked(messages=shown(url)), timeout=20)

        assert post(f"http://127.0.0.1:{port}/a.png").status_code == 200
        refused = post(f"http://127.0.0.2:{port}/a.png")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "image_not_fetched")
        assert "public internet" in refused.json()["error"]["message"]


def test_a_server_that_may_fetch_reaches_no_private_network(models: dict[str, Served]) -> None:
    with site() as (port, asked_for), running(models, remote=True) as server:
        body = asked(messages=shown(f"http://localhost:{port}/a.png"))
        assert httpx2.post(f"{server.url}/v1/chat/completions", json=body).status_code == 422
        assert asked_for == []
