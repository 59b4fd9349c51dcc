"""The HTTP application: OpenAI's chat completions, the models, health, measures, and a page to try them on."""

from collections.abc import Mapping
from typing import Any, Final, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vlmc.runtime import __version__
from vlmc.runtime.serving import page
from vlmc.runtime.serving.answered import ChatCompletion
from vlmc.runtime.serving.asked import UNSUPPORTED, ChatRequest
from vlmc.runtime.serving.chat import Chat, Gone
from vlmc.runtime.serving.guards import Body, Gate, Gated, Key
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.listing import ModelCard, ModelList, Status
from vlmc.runtime.serving.metrics import CONTENT_TYPE, Counted, Metrics
from vlmc.runtime.serving.refusals import ErrorBody, closing, failed, not_found, of_http, of_validation
from vlmc.runtime.serving.remote import Allowed, is_public
from vlmc.runtime.serving.served import Served
from vlmc.runtime.serving.sources import Sources

_GONE = 499  # nginx's status for a client that went away
_ON_ERROR: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "The request is wrong.", "model": ErrorBody},
    401: {"description": "The API key is missing or wrong.", "model": ErrorBody},
    404: {"description": "There is no such model.", "model": ErrorBody},
    408: {"description": "The request took too long to arrive.", "model": ErrorBody},
    413: {"description": "The request is too large.", "model": ErrorBody},
    422: {"description": "An image cannot be read or fetched.", "model": ErrorBody},
    429: {"description": "Too many requests wait.", "model": ErrorBody},
    503: {"description": "The server is being shut down.", "model": ErrorBody},
    504: {"description": "The answer took too long.", "model": ErrorBody},
}
_EVENTS: Final = {"description": "The answer; in events, if stream is true.", "content": {"text/event-stream": {}}}


@final
class Application:
    """An ASGI application that answers with the models it is given, which it does not close.

    `key`: only requests with this API key are let in to /v1/. `remote`: images are fetched from addresses that are
    `allowed`. `gate` lets requests in, until it is closed.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        limits: Limits,
        *,
        key: str | None = None,
        remote: bool = False,
        allowed: Allowed = is_public,
    ) -> None:
        self.gate = Gate(limits.requests)
        self._models, self._metrics = models, Metrics()
        sources = Sources(limits, remote=remote, allowed=allowed)
        batchers = {name: served.batcher for name, served in models.items()}
        self._chat = Chat(batchers, limits, sources, self._metrics)
        app: ASGIApp = Gated(Body(self._routes(), limits), self.gate, limits.arrival)
        self._app = Counted(app if key is None else Key(app, key, limits.arrival), self._metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End what works for this application alone."""
        self._chat.close()

    def _routes(self) -> FastAPI:
        app = FastAPI(title="vlmc", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
        self._add_api(app)
        self._add_watching(app)
        page.add(app)
        app.add_exception_handler(HTTPException, _tell)
        app.add_exception_handler(RequestValidationError, _tell_validation)
        app.add_exception_handler(Exception, _tell_failure)
        return app

    def _add_api(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions", response_model=ChatCompletion, responses={200: _EVENTS, **_ON_ERROR})
        async def chat(asked: ChatRequest, client: Request) -> Response:
            """Answer a conversation about images."""
            try:
                if asked.stream:
                    return await self._chat.streamed(asked, client)
                return JSONResponse((await self._chat.whole(asked, client)).model_dump())
            except Gone:
                return Response(status_code=_GONE)

        @app.get("/v1/models", response_model=ModelList, responses={401: _ON_ERROR[401]})
        async def models() -> ModelList:
            """List the models."""
            return ModelList(data=[ModelCard.of(name, served) for name, served in self._models.items()])

        @app.get("/v1/models/{name:path}", response_model=ModelCard, responses={401: _ON_ERROR[401], 404: _ON_ERROR[404]})
        async def model(name: str) -> ModelCard:
            """Describe one model."""
            if name not in self._models:
                raise not_found(name, self._models)
            return ModelCard.of(name, self._models[name])

    def _add_watching(self, app: FastAPI) -> None:
        @app.get("/health", response_model=Status)
        async def health() -> Status:
            """Say that the server lives."""
            return Status(status="ok")

        @app.get("/ready", response_model=Status, responses={503: _ON_ERROR[503]})
        async def ready() -> Status:
            """Say whether it takes requests; 503 while it is being shut down."""
            if self.gate.closed:
                raise closing()
            return Status(status="ready")

        @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """Return what is measured, in Prometheus' form."""
            questions = {name: _states(served) for name, served in self._models.items()}
            return Response(self._metrics.text(questions), headers={"Content-Type": CONTENT_TYPE})


def _states(served: Served) -> dict[str, int]:
    state = served.batcher.state()
    return {"running": state.running, "queued": state.queued}


async def _tell(client: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return of_http(error).response()


async def _tell_validation(client: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_validation(error.errors(), UNSUPPORTED).response()


async def _tell_failure(client: Request, error: Exception) -> Response:
    return failed().response()
