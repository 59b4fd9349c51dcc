"""What a server counts and measures, in Prometheus' form."""

from typing import Final, Literal, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlmc.runtime.answers import Answer

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
End = Literal["stop", "length", "gone", "late", "failed"]
"""How an answer ended: by itself, at its limit, because the client went away, it took too long, or something failed."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BY_MODEL = ("model",)


@final
class Metrics:
    """The measures of one server, in a registry of their own."""

    def __init__(self) -> None:
        kept = CollectorRegistry()
        self._registry = kept
        self._responses = Counter("vlmc_responses", "Responses by status.", ("status",), registry=kept)
        self._answers = Counter("vlmc_answers", "Answers by how they ended.", ("model", "end"), registry=kept)
        self._prompt = Counter("vlmc_prompt_tokens", "Tokens read, images' included.", _BY_MODEL, registry=kept)
        self._generated = Counter("vlmc_generated_tokens", "Tokens generated.", _BY_MODEL, registry=kept)
        self._first = Histogram(
            "vlmc_first_token_seconds", "Question to first token (TTFT).", _BY_MODEL, buckets=_SECONDS, registry=kept
        )
        self._token = Histogram(
            "vlmc_next_token_seconds", "Between two tokens, mean of an answer.", _BY_MODEL, buckets=_SECONDS, registry=kept
        )
        self._total = Histogram(
            "vlmc_answer_seconds", "Question to end of answer.", _BY_MODEL, buckets=_SECONDS, registry=kept
        )
        self._questions = Gauge("vlmc_questions", "Questions now, by what they do.", ("model", "state"), registry=kept)

    def responded(self, status: int) -> None:
        """Count a response."""
        self._responses.labels(str(status)).inc()

    def ended(self, model: str, end: End) -> None:
        """Count an answer that is over, whole or not."""
        self._answers.labels(model, end).inc()

    def answered(self, model: str, answer: Answer) -> None:
        """Count an answer that is whole, its tokens and its times."""
        self.ended(model, answer.finish)
        self._prompt.labels(model).inc(answer.prompt_tokens)
        self._generated.labels(model).inc(len(answer.tokens))
        self._first.labels(model).observe(answer.timings.first_token)
        self._total.labels(model).observe(answer.timings.total)
        if answer.timings.tokens_per_second is not None:
            self._token.labels(model).observe(1 / answer.timings.tokens_per_second)

    def text(self, questions: dict[str, dict[str, int]]) -> bytes:
        """Return all measures as Prometheus reads them; `questions` is how many there are, by model and by state."""
        for model, states in questions.items():
            for state, count in states.items():
                self._questions.labels(model, state).set(count)
        return generate_latest(self._registry)


@final
class Counted:
    """Counts every response by its status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responded(int(message["status"]))
            await send(message)

        await self._app(scope, receive, watched)
