"""What is wrong is refused with the right status, in OpenAI's form, and tells nothing of the server's insides."""

import base64
import json
from typing import Any

import httpx2
import openai
import pytest

from tests import pico
from tests.fuzz.image_files import png
from tests.runtime.serving.conftest import Held
from tests.runtime.serving.material import Running, asked, data_url, shown
from vlmc.runtime.errors import Busy, Closed

IMAGE = data_url(pico.picture(0))
BOMB = "data:image/png;base64," + base64.b64encode(png(20000, 20000, 0, b"")).decode()


def post(server: Running, body: object, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server.url}/v1/chat/completions"
    return httpx2.post(url, content=content, headers={"Content-Type": "application/json", **headers}, timeout=20)


def part(**content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [content]}]


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "other"}, 404, "model_not_found", "there is no model other here: give pico"),
    ({"model": "o\ud800\n"}, 404, "model_not_found", "there is no model"),
    ({"messages": []}, 400, "invalid_value", "messages: "),
    ({"messages": "hello"}, 400, "invalid_value", "messages: "),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "user", "content": []}]}, 400, "invalid_value", "messages.0.content"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_request", "user"),
    (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}]},
        400,
        "invalid_",
        "",
    ),
    ({"messages": part(type="input_audio", input_audio={})}, 400, "invalid_value", "messages.0.content"),
    ({"messages": part(type="image_url", image_url={"url": "file:///etc/passwd"})}, 400, "invalid_image_url", "neither"),
    (
        {"messages": part(type="image_url", image_url={"url": "https://a.b/c.png"})},
        400,
        "remote_images_off",
        "--allow-remote",
    ),
    ({"messages": shown("data:image/png;base64,!!!")}, 400, "invalid_image_url", "base64"),
    ({"messages": shown("data:text/html;base64,AAAA")}, 400, "invalid_image_url", "base64"),
    (
        {"messages": shown("data:image/png;base64,AAAA")},
        422,
        "invalid_image",
        "messages.0.content.0.image_url is not an image",
    ),
    ({"messages": shown(BOMB)}, 422, "invalid_image", "128,000,000 pixels"),
    ({"messages": shown(*[IMAGE] * 33)}, 400, "too_many_images", "33 images"),
    ({"messages": shown(IMAGE, text="what " * 300)}, 400, "invalid_request", "shorter"),
    ({"messages": shown(IMAGE, text="\ud800?")}, 400, "invalid_request", "UTF-8"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 513}, 400, "max_tokens_too_large", "at most 512"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "invalid_value", "differ"),
    ({"temperature": -1}, 400, "invalid_value", "temperature"),
    ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"seed": -1}, 400, "invalid_value", "seed"),
    ({"stop": ["x"] * 100}, 400, "invalid_request", "stop"),
    ({"stop": ""}, 400, "invalid_request", "stop"),
    ({"n": 2}, 400, "unsupported", "n is not supported"),
    ({"logprobs": True}, 400, "unsupported", "logprobs is not supported"),
    ({"tools": [{"type": "function"}]}, 400, "unsupported", "tools is not supported"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported", "response_format is not supported"),
    ({"presence_penalty": 0.5}, 400, "unsupported", "presence_penalty is not supported"),
    ({"functions": []}, 400, "unsupported", "functions is not supported"),
    ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream=true"),
]


@pytest.mark.parametrize(("changed", "status", "code", "said"), WRONG, ids=[str(index) for index in range(len(WRONG))])
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_requests_are_refused(
    server: Running, changed: dict[str, Any], status: int, code: str, said: str, stream: bool
) -> None:
    if stream and "stream_options" in changed:
        pytest.skip("it is right for a stream")
    response = post(server, asked(**changed, stream=stream))
    error = response.json()["error"]
    assert (response.status_code, set(error)) == (status, {"message", "type", "param", "code"})
    assert error["code"].startswith(code)
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert not any(inside in response.text for inside in ("Traceback", "Error(", "/tmp", "site-packages", "0x"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_value"),
        (b"{", "invalid_json"),
        (b"[1, 2]", "invalid_value"),
        (b"null", "invalid_value"),
        (b"\xff\xfe", "invalid_"),
        (b"[" * 100_000, "invalid_"),
        (b'{"model": ' + b"9" * 10_000 + b"}", "invalid_"),
        (b'{"model": "pico", "messages": [], "temperature": NaN}', "invalid_value"),
    ],
)
def test_bodies_that_are_no_request_are_refused(server: Running, body: bytes, code: str) -> None:
    response = post(server, body)
    assert response.status_code == 400
    assert response.json()["error"]["code"].startswith(code)


def test_what_a_page_of_another_origin_could_send_is_refused(server: Running) -> None:
    """A browser sends text/plain anywhere without asking; JSON only where it was allowed to."""
    assert post(server, asked(), **{"Content-Type": "text/plain"}).status_code == 400
    allowed = httpx2.options(f"{server.url}/v1/chat/completions", headers={"Origin": "https://x.y"})
    assert "access-control-allow-origin" not in allowed.headers


def test_options_without_effect_may_have_their_usual_value(server: Running) -> None:
    usual = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "logit_bias": {}, "tools": []}
    more = {"response_format": {"type": "text"}, "user": "me", "store": False, "service_tier": "auto", "tool_choice": "none"}
    assert post(server, asked(**usual, **more)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1/models/x", 404)]
)
def test_wrong_paths_are_told_in_the_same_form(server: Running, method: str, path: str, status: int) -> None:
    response = httpx2.request(method, server.url + path)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_openais_client_raises_its_own_errors(server: Running) -> None:
    client = server.client()
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="x", messages=shown(IMAGE))
    with pytest.raises(openai.BadRequestError, match="n is not supported") as wrong:
        client.chat.completions.create(model="pico", messages=shown(IMAGE), n=2)
    assert (wrong.value.param, wrong.value.code, wrong.value.type) == ("n", "unsupported", "invalid_request_error")
    with pytest.raises(openai.UnprocessableEntityError, match="is not an image"):
        client.chat.completions.create(model="pico", messages=shown("data:image/png;base64,AAAA"))


@pytest.mark.parametrize(
    ("refusal", "status", "retry"),
    [(Busy("full"), 429, "1"), (Closed("closed"), 503, "5"), (RuntimeError("/secret"), 500, None)],
)
def test_what_the_batcher_says_has_a_status(
    held: Held, refusal: Exception, status: int, retry: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    held.batcher.refusal = refusal
    response = post(held, asked())
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry)
    assert "secret" not in response.text
