"""One HTTP exchange over a plain connection, with all under control that a client library would do well."""

import asyncio
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

PATIENCE: Final = 200.0  # seconds, longer than the server's own limits
REFUSED, BROKEN, SILENT, LEFT = "connection refused", "connection broken", "no answer", "client left"
"""What came of a request without a status: not taken, cut off, waited for in vain, given up by the client."""


@dataclass(frozen=True)
class Came:
    """What came of a request: its status or one of the words above, and whether a client can tell what it means."""

    status: int | str
    clear: bool
    seconds: float
    text: str | None = None


@dataclass(frozen=True)
class Manner:
    """How a client behaves: what it sends in how many pieces, how it reads, and when it leaves, in seconds."""

    pieces: int = 1
    pause: float = 0.0
    buffer: int | None = None
    leaves: float | None = None


async def exchange(host: str, port: int, content: bytes, manner: Manner) -> Came:
    """Send bytes and return what came of it."""
    began = time.perf_counter()
    received = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            status = await _talk(host, port, content, manner, received)
    except ConnectionRefusedError:
        status = REFUSED
    except OSError:
        status = None
    except TimeoutError:
        status = SILENT
    seconds = time.perf_counter() - began
    if status is not None:
        return Came(status, status != SILENT, seconds)
    return judged(bytes(received), seconds)


async def _talk(host: str, port: int, content: bytes, manner: Manner, received: bytearray) -> str | None:
    """Send and receive; return what came of it where that is no answer."""
    taken = socket.socket()
    taken.setblocking(False)
    if manner.buffer:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, manner.buffer)
    await asyncio.get_running_loop().sock_connect(taken, (host, port))
    reader, writer = await asyncio.open_connection(sock=taken, limit=manner.buffer or 65536)
    try:
        with suppress(ConnectionError):  # what was refused early may have an answer
            await _send(writer, content, manner.pieces)
        if manner.leaves is not None:
            await asyncio.sleep(manner.leaves)
            return LEFT
        while piece := await reader.read(manner.buffer or 65536):
            received += piece
            await asyncio.sleep(manner.pause)
        return None
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, content: bytes, pieces: int) -> None:
    step = -(-len(content) // pieces)
    for place in range(0, len(content), step or 1):
        writer.write(content[place : place + step])
        await writer.drain()
        await asyncio.sleep(0.01 if pieces > 1 else 0)


def judged(received: bytes, seconds: float) -> Came:
    """Return what a whole response means."""
    try:
        response = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
        response.begin()
        content = response.read()
    except (http.client.HTTPException, OSError, ValueError):
        return Came(BROKEN, False, seconds)
    kind = response.headers.get_content_type()
    try:
        text = _answer(content, kind) if response.status == 200 else None
        clear = response.status == 200 or kind == "text/plain" or bool(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return Came(response.status, False, seconds)
    return Came(response.status, clear and response.status < 600 and response.status != 500, seconds, text)


def _answer(content: bytes, kind: str) -> str | None:
    """Return the text of an answer; None where it is none, or an error in a stream.

    Raises:
        ValueError, KeyError: it is not whole.
    """
    if kind == "text/event-stream":
        events = list(_events(content))
        if "error" in events[-1]:
            return None
        if not content.endswith(b"data: [DONE]\n\n"):
            raise ValueError("the stream has no end")
        return "".join(choice["delta"]["content"] or "" for event in events for choice in event["choices"])
    found = json.loads(content) if kind == "application/json" else {}
    return str(found["choices"][0]["message"]["content"]) if "choices" in found else None


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.decode().split("\n"):
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


class _Received:
    """Bytes as `http.client` reads them from a socket."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._content)
