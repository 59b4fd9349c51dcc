"""An answer, whole or in pieces, in the form of OpenAI's chat completions."""

import time
from dataclasses import dataclass, field
from typing import Literal, final
from uuid import uuid4

from pydantic import BaseModel

from vlmc.runtime.answers import Answer, Finish


class Usage(BaseModel):
    """How many tokens there were; those of images are in the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(BaseModel):
    """Seconds from the question to the first token and to the end, and how quickly tokens came after the first."""

    first_token: float
    total: float
    tokens_per_second: float | None


class AnswerMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """The one answer that there is."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """The answer to a conversation; `timings` is vlmc's own."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    timings: Timing


class Delta(BaseModel):
    """What a piece adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class PieceChoice(BaseModel):
    """A piece of the one answer that there is."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Finish | None = None


class ChatPiece(BaseModel):
    """A piece of a streamed answer; the last one has no choice, but numbers and times, if they were asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[PieceChoice]
    usage: Usage | None = None
    timings: Timing | None = None


@final
@dataclass(frozen=True)
class Envelope:
    """What all the pieces of one answer have in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> ChatCompletion:
        """Return an answer that is not streamed."""
        choice = Choice(message=AnswerMessage(content=answer.text), finish_reason=answer.finish)
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[choice],
            usage=_usage(answer),
            timings=_timing(answer),
        )

    def piece(self, delta: Delta, finish: Finish | None = None) -> ChatPiece:
        """Return a piece of the answer."""
        choices = [PieceChoice(delta=delta, finish_reason=finish)]
        return ChatPiece(id=self.id, created=self.created, model=self.model, choices=choices)

    def numbers(self, answer: Answer) -> ChatPiece:
        """Return the last piece, for those who ask for numbers."""
        return ChatPiece(
            id=self.id, created=self.created, model=self.model, choices=[], usage=_usage(answer), timings=_timing(answer)
        )


def _usage(answer: Answer) -> Usage:
    generated = len(answer.tokens)
    return Usage(
        prompt_tokens=answer.prompt_tokens, completion_tokens=generated, total_tokens=answer.prompt_tokens + generated
    )


def _timing(answer: Answer) -> Timing:
    times = answer.timings
    return Timing(first_token=times.first_token, total=times.total, tokens_per_second=times.tokens_per_second)
