"""Runs an application until a signal ends it: what was let in is finished, and nothing more is let in."""

import asyncio
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from selectors import EVENT_READ, DefaultSelector
from types import FrameType
from typing import Any, Final, final

import uvicorn

from vlmc.runtime.errors import InputError
from vlmc.runtime.serving.application import Application
from vlmc.runtime.serving.connections import Connection

BACKLOG: Final = 512
_LAST = 5  # seconds in which connections close, once everything is answered; as long as idle ones are kept
_TICK = 0.05  # seconds between two looks
_LOG: Final[Mapping[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {name: {"handlers": ["stderr"], "propagate": False} for name in ("uvicorn", "vlmc.serving")},
}


@final
class Server(uvicorn.Server):
    """uvicorn, which at the first SIGTERM or SIGINT still takes connections, to refuse what they ask, until all is answered.

    That takes at most `seconds`; a second signal ends it at once. `log` has a line for each request.
    """

    def __init__(self, application: Application, *, seconds: float, log: bool = False) -> None:
        config = uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=dict(_LOG),
            log_level="info" if log else "warning",
            access_log=log,
            backlog=BACKLOG,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST,
        )
        super().__init__(config)
        self._gate, self._seconds = application.gate, seconds
        self._ending: asyncio.Task[None] | None = None
        self._listening: list[socket.socket] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at the second signal, end."""
        if self._gate.closed:
            self.should_exit = self.force_exit = True
        self._gate.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        self._listening = sockets or []
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether to end."""
        if self._gate.closed and self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return await super().on_tick(counter)

    async def _end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._gate.empty()
        with suppress(TimeoutError):  # who was connected before the end and asks now is told of it
            async with asyncio.timeout(_LAST):
                await self._close_listening()
                while self.server_state.connections:
                    await asyncio.sleep(_TICK)
        self._stop_listening()
        self.should_exit = True

    async def _close_listening(self) -> None:
        """Take no more connections.

        Those that wait to be taken would be cut off, and asyncio drops those that it has taken and not yet set up: so it is
        done at a moment at which there are none of either.
        """
        with ExitStack() as stack, DefaultSelector() as waiting:
            for listening in self._listening:
                own = stack.enter_context(listening.dup())
                own.listen(0)  # who comes now is not answered by the system, tries again in a second, and is refused
                waiting.register(own, EVENT_READ)
            await asyncio.sleep(_TICK)
            while waiting.select(0):
                await asyncio.sleep(_TICK)
            self._stop_listening()
        await asyncio.sleep(_TICK)  # a connection that was set up counts a moment later

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()


def bind(host: str, port: int, seconds: float) -> socket.socket:
    """Return a socket on a port, 0 for any free one; a connection ends whose peer takes nothing in for so many seconds.

    Raises:
        InputError: the port is taken, or the host is not this machine's.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
        bound.bind(place)
    except OSError as error:
        raise InputError(f"{host}:{port} is not to be had ({error.strerror}): choose another --host or --port") from None
    return bound


def address(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
