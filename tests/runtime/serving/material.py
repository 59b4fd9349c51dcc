"""Servers for tests: on a free port of loopback, in a thread; and batchers that answer when a test says so."""

import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from openai import OpenAI
from PIL import Image

from tests import pico
from vlmc.runtime.answers import Answer, Timings
from vlmc.runtime.batching import BatcherState, Pending
from vlmc.runtime.messages import Message
from vlmc.runtime.options import Options
from vlmc.runtime.serving import Application, Limits, Served, Server, address, bind

QUESTION = pico.QUESTIONS[0]
SOON = 20.0  # seconds in which anything has happened that is to happen


@dataclass
class Slow:
    """Stands for a batcher: keeps what it is asked, and answers nothing by itself."""

    asked: list[Pending] = field(default_factory=list)
    refusal: Exception | None = None

    def ask(self, messages: list[Message], options: Options) -> Pending:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(Pending())
        return self.asked[-1]

    def state(self) -> BatcherState:
        return BatcherState(0, len(self.asked), 0, 0, 0, 0, 0, 0)


def answer(text: str = "a b c") -> Answer:
    """Return an answer of a batcher."""
    return Answer(text, (5, 6, 2), 9, "stop", Timings(0.25, 0.5, 3))


@dataclass
class Running:
    """A server that runs."""

    url: str
    application: Application
    server: Server

    def client(self, key: str = "none", **options: object) -> OpenAI:
        """Return OpenAI's client of it, which never tries twice."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": SOON, **options})


@contextmanager
def running(models: Mapping[str, Served], limits: Limits | None = None, **options: object) -> Iterator[Running]:
    """Run a server in a thread until the end of the block."""
    application = Application(models, limits or Limits(), **options)
    with bind("127.0.0.1", 0, 60) as bound:
        server = Server(application, seconds=5)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield Running(address(bound), application, server)
        finally:
            server.should_exit = True
            thread.join(SOON)
            application.close()


def until(holds: Callable[[], bool], seconds: float = SOON) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def data_url(image: Image.Image, form: str = "png") -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown(*images: str, text: str = QUESTION) -> list[dict[str, object]]:
    """Return a conversation of one turn: images by their URLs, then a question."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def asked(model: str = "pico", **changed: object) -> dict[str, object]:
    """Return a request as JSON."""
    return {"model": model, "messages": shown(data_url(pico.picture(0)))} | changed


def received(connection: socket.socket, awaited: bytes) -> bytes:
    """Return what a connection sends, once there is something in it."""
    connection.settimeout(SOON)
    content = b""
    while awaited not in content:
        content += connection.recv(65536)
    return content


def connected(server: Running) -> socket.socket:
    """Return a connection to a server, over which nothing was sent."""
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SOON)
