"""What is refused, and how: each failure has a status, and OpenAI's error object as its body."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vlmc.runtime.errors import one_line

RETRY_AFTER: Final = "Retry-After"
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 415: "unsupported_media_type"}


class ErrorObject(BaseModel):
    """OpenAI's error object; `param` is the part of the request that is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of a response that is no answer."""

    error: ErrorObject


class Refused(HTTPException):
    """A request that is not answered: an HTTP status, a message of one line, and a code for programs."""

    def __init__(
        self, status: int, message: str, code: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, one_line(message, 500), dict(headers or {}))
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.body = ErrorBody(error=ErrorObject(message=self.detail, type=kind, param=param, code=code))

    def response(self) -> JSONResponse:
        """Return the response that tells it."""
        return JSONResponse(self.body.model_dump(), self.status_code, self.headers)


def busy() -> Refused:
    """Refuse because as many requests wait as may."""
    message = "as many requests are answered and wait as this server takes: ask again later"
    return Refused(429, message, "busy", headers={RETRY_AFTER: "1"})


def closing() -> Refused:
    """Refuse because the server is being shut down."""
    headers = {RETRY_AFTER: "5", "Connection": "close"}
    return Refused(503, "the server is being shut down: ask another one, or later", "closing", headers=headers)


def late(seconds: float) -> Refused:
    """Refuse because a request took too long."""
    return Refused(504, f"the answer was not complete after {seconds:g} seconds: ask for a shorter one", "timeout")


def not_found(name: str, known: Iterable[str]) -> Refused:
    """Refuse because there is no such model."""
    message = f"there is no model {one_line(name, 100)} here: give {', '.join(known)}"
    return Refused(404, message, "model_not_found", param="model")


def failed() -> Refused:
    """Tell of an error of the server's own, without what only its log should say."""
    return Refused(500, "the server failed; its log says more", "internal_error")


def of_http(error: HTTPException) -> Refused:
    """Return what the router raises, such as for an unknown path, in OpenAI's form."""
    if isinstance(error, Refused):
        return error
    code = _CODES.get(error.status_code, "invalid_request")
    return Refused(error.status_code, error.detail, code, headers=error.headers)


def of_validation(errors: Sequence[Mapping[str, Any]], unsupported: frozenset[str]) -> Refused:
    """Return the first thing that is wrong in a request's form; options in `unsupported` may only have their usual value."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is not valid JSON: {first['ctx']['error']}", "invalid_json")
    if first["type"] == "extra_forbidden" or (place and place[0] in unsupported):
        name = one_line(place[-1] if first["type"] == "extra_forbidden" else place[0], 60)
        return Refused(400, f"{name} is not supported by this server: leave it out", "unsupported", param=name)
    param = one_line(".".join(place), 100) or None
    message = first["msg"].removeprefix("Value error, ")
    return Refused(400, f"{param or 'the body'}: {message[:1].lower()}{message[1:]}", "invalid_value", param=param)
