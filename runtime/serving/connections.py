"""A connection that must ask for something: one that is silent, or dawdles over its headers, is closed."""

from asyncio import TimerHandle, Transport
from typing import Final, final

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS: Final = 15.0
"""How long a connection may take to send the headers of a request."""


@final
class Connection(H11Protocol):
    """uvicorn's connection, with a limit to how long the headers of a request may take."""

    _due: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Expect headers."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Expect the rest of the headers, unless they are whole now."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle and not self.cycle.response_complete:
            self._forget()
        elif self._due is None:
            self._due = self.loop.call_later(SECONDS, self.transport.abort)

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
