"""Answers to requests, whole or streamed, from the models of a server; a client that goes away frees its place."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, final

from starlette.requests import Request

from vlmc.runtime.batching import Batcher, Pending
from vlmc.runtime.errors import Busy, Closed, InputError
from vlmc.runtime.options import Options
from vlmc.runtime.serving.answered import ChatCompletion, Envelope
from vlmc.runtime.serving.asked import ChatRequest
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.metrics import Metrics
from vlmc.runtime.serving.reading import read_messages
from vlmc.runtime.serving.refusals import Refused, busy, closing, late, not_found
from vlmc.runtime.serving.sources import Sources
from vlmc.runtime.serving.streaming import Streamed, events

READERS: Final = 2
"""Requests whose images are decoded at a time: a single image may take nearly 1 GB."""
Result = TypeVar("Result")


class Gone(Exception):
    """The client went away before its answer was whole."""


@final
class Chat:
    """Asks the models what requests ask, and measures."""

    def __init__(self, models: Mapping[str, Batcher], limits: Limits, sources: Sources, metrics: Metrics) -> None:
        self._models, self._limits, self._sources, self._metrics = models, limits, sources, metrics
        self._readers = ThreadPoolExecutor(READERS, "vlmc-images")

    async def whole(self, asked: ChatRequest, client: Request) -> ChatCompletion:
        """Return the whole answer.

        Raises:
            Refused: the request is wrong, or cannot be answered now.
            Gone: the client went away.
        """
        async with self._watch(asked, self._deadline()):
            pending = await while_there(client, self._ask(asked))
            try:
                answer = await while_there(client, pending.wait())
            finally:
                pending.cancel()
        self._metrics.answered(asked.model, answer)
        return Envelope(asked.model).whole(answer)

    async def streamed(self, asked: ChatRequest, client: Request) -> Streamed:
        """Return the answer in pieces, once there is a first one: what goes wrong before has a status of its own.

        Raises:
            Refused, Gone: as `whole`.
        """
        deadline = self._deadline()
        async with self._watch(asked, deadline):
            pending = await while_there(client, self._ask(asked))
            pieces = aiter(pending)
            try:
                first = await while_there(client, _next(pieces))
            except BaseException:
                pending.cancel()
                raise
        return Streamed(events(asked, pending, first, pieces, self._metrics, self._limits, deadline), pending)

    def close(self) -> None:
        """End the threads that decode images."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.seconds

    @asynccontextmanager
    async def _watch(self, asked: ChatRequest, deadline: float) -> AsyncIterator[None]:
        """Turn what may happen to a question into what its client is told."""
        self._find(asked)
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            self._metrics.ended(asked.model, "late")
            raise late(self._limits.seconds) from None
        except Gone:
            self._metrics.ended(asked.model, "gone")
            raise
        except Busy:
            raise busy() from None
        except Closed:
            raise closing() from None
        except InputError as error:
            raise Refused(400, str(error), "invalid_request") from None
        except Refused:
            raise
        except Exception:
            self._metrics.ended(asked.model, "failed")
            raise

    async def _ask(self, asked: ChatRequest) -> Pending:
        """Read the request's images and put its question into the queue; a thread does so, for it takes a while."""
        options, files = self._options(asked), await self._sources.read(asked)
        batcher = self._find(asked)
        loop = asyncio.get_running_loop()
        asking = loop.run_in_executor(self._readers, lambda: batcher.ask(read_messages(asked, files), options))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_give_up)
            raise

    def _find(self, asked: ChatRequest) -> Batcher:
        if asked.model not in self._models:
            raise not_found(asked.model, self._models)
        return self._models[asked.model]

    def _options(self, asked: ChatRequest) -> Options:
        limit = asked.limit or self._limits.tokens
        if limit > self._limits.tokens:
            message = f"max_tokens is {limit}: this server gives at most {self._limits.tokens}"
            raise Refused(400, message, "max_tokens_too_large", param="max_tokens")
        stop = () if asked.stop is None else asked.stop
        given = {name: getattr(asked, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")}
        chosen = {name: value for name, value in given.items() if value is not None}
        return Options.of(max_new_tokens=limit, stop=stop, **chosen)


async def while_there(client: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what the work gives; end it where the client goes away first.

    Raises:
        Gone: the client went away.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(client))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(client: Request) -> None:
    while (await client.receive())["type"] != "http.disconnect":
        pass


async def _next(pieces: AsyncIterator[str]) -> str:
    """Return the next piece, nothing where the answer has none."""
    return await anext(pieces, "")


def _give_up(asking: "asyncio.Future[Pending]") -> None:
    """End a question that nobody waits for any more, once it is in the queue."""
    if not asking.cancelled() and asking.exception() is None:
        asking.result().cancel()
