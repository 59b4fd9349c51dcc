"""What a request passes before it is read as one: the key, the number of requests at a time, its size and time."""

import asyncio
import hmac
from collections import deque
from contextlib import suppress
from typing import Final, final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.refusals import Refused, busy, closing

API: Final = "/v1/"
"""The paths that a key, the number of requests and the end of the server concern; the others are always there."""


@final
class Key:
    """Lets in only who knows the key, as `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str, arrival: float) -> None:
        self._app, self._expected, self._arrival = app, f"Bearer {key}".encode(), arrival

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("authorization", "") if _is_api(scope) else None
        if given is None or hmac.compare_digest(given.encode(), self._expected):
            return await self._app(scope, receive, send)
        message = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'"
        refused = Refused(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return await _refuse(refused, scope, receive, send, self._arrival)


@final
class Gate:
    """Lets in so many requests at a time, and none once it is closed; those that are in finish."""

    def __init__(self, most: int) -> None:
        self._most, self._inside, self._closed = most, 0, False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @property
    def inside(self) -> int:
        """How many requests are being answered, or wait to be."""
        return self._inside

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    async def empty(self) -> None:
        """Wait until no request is inside."""
        await self._empty.wait()

    def enter(self) -> None:
        """Count a request in.

        Raises:
            Refused: too many are inside, or the gate is closed.
        """
        if self._closed:
            raise closing()
        if self._inside >= self._most:
            raise busy()
        self._inside += 1
        self._empty.clear()

    def leave(self) -> None:
        """Count a request out."""
        self._inside -= 1
        if not self._inside:
            self._empty.set()


@final
class Gated:
    """Passes requests of the API through a gate."""

    def __init__(self, app: ASGIApp, gate: Gate, arrival: float) -> None:
        self._app, self._gate, self._arrival = app, gate, arrival

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_api(scope) or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        try:
            self._gate.enter()
        except Refused as refused:
            return await _refuse(refused, scope, receive, send, self._arrival)
        try:
            return await self._app(scope, receive, send)
        finally:
            self._gate.leave()


@final
class Body:
    """Reads a request's whole body before anything else sees it: at most so many bytes, within so many seconds."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        try:
            body = await self._read(scope, receive)
        except Refused as refused:
            return await refused.response()(scope, receive, send)
        if body is None:
            return None  # the client is gone
        waiting: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return waiting.popleft() if waiting else await receive()

        return await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, None if the client went away in the middle of it.

        One that is too large is read to its end and thrown away: a client that still sends does not read why.
        """
        headers, most, body, size = Headers(scope=scope), self._limits.body, bytearray(), 0
        if "expect" in headers and int(headers.get("content-length", 0)) > most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._limits.arrival):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    size, more = size + len(message["body"]), message["more_body"]
                    if size <= most:
                        body += message["body"]
        except TimeoutError:
            told = f"the request did not arrive within {self._limits.arrival:g} seconds"
            raise Refused(408, told, "timeout", headers={"Connection": "close"}) from None
        if size > most:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Refused:
        message = f"the request is too large: the limit is {self._limits.body:,} bytes; send smaller images"
        return Refused(413, message, "too_large", headers={"Connection": "close"})


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
    """Refuse a request once its body was thrown away: a client that still sends does not read why."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive()).get("more_body", False):
                pass
    await refused.response()(scope, receive, send)


def _is_api(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(API)
