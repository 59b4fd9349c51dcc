"""A streamed answer: server-sent events, as OpenAI sends them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import final

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vlmc.runtime.batching import Pending
from vlmc.runtime.errors import Closed
from vlmc.runtime.serving.answered import Delta, Envelope
from vlmc.runtime.serving.asked import ChatRequest
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.metrics import Metrics
from vlmc.runtime.serving.refusals import closing, failed, late

DONE = b"data: [DONE]\n\n"
LOG = logging.getLogger("vlmc.serving")


@final
class Streamed(StreamingResponse):
    """Sends events; whatever ends the sending ends the question."""

    def __init__(self, events: AsyncIterator[bytes], pending: Pending) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second one is nginx's
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._pending = pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pending.cancel()


async def events(
    asked: ChatRequest,
    pending: Pending,
    first: str,
    pieces: AsyncIterator[str],
    metrics: Metrics,
    limits: Limits,
    deadline: float,
) -> AsyncIterator[bytes]:
    """Yield the events of an answer: its pieces, how it ended, its numbers where they are asked for, the end.

    What goes wrong in the middle is an event with OpenAI's error object, and the last one.
    """
    envelope = Envelope(asked.model)
    try:
        yield _event(envelope.piece(Delta(role="assistant", content="")))
        async for piece in _in_time(first, pieces, deadline):
            yield _event(envelope.piece(Delta(content=piece)))
        answer = await pending.wait()
    except TimeoutError:
        metrics.ended(asked.model, "late")
        yield _event(late(limits.seconds).body)
    except Closed:
        metrics.ended(asked.model, "failed")
        yield _event(closing().body)
    except (asyncio.CancelledError, GeneratorExit):
        metrics.ended(asked.model, "gone")
        raise
    except Exception:
        LOG.exception("a streamed answer failed")
        metrics.ended(asked.model, "failed")
        yield _event(failed().body)
    else:
        metrics.answered(asked.model, answer)
        yield _event(envelope.piece(Delta(), answer.finish))
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield _event(envelope.numbers(answer))
        yield DONE


async def _in_time(first: str, pieces: AsyncIterator[str], deadline: float) -> AsyncIterator[str]:
    """Yield the pieces that come before the deadline.

    Raises:
        TimeoutError: there are more.
    """
    piece = first
    while True:
        if piece:
            yield piece
        try:
            async with asyncio.timeout_at(deadline):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return


def _event(content: BaseModel) -> bytes:
    return b"data: " + content.model_dump_json().encode() + b"\n\n"
