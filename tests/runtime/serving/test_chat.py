"""OpenAI's own client gets the model's answers, whole and streamed, in threads and in an event loop."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests import pico
from tests.runtime.serving.material import QUESTION, SOON, Running, data_url, shown
from vlmc.runtime import Model, load

PICTURES = [pico.picture(seed, 40, 30) for seed in range(4)]


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[Model]:
    with load(artifact, threads=1) as loaded:
        yield loaded


@pytest.mark.integration
def test_an_answer_is_the_models_own(server: Running, model: Model) -> None:
    for picture in PICTURES:
        expected = model.generate(picture, QUESTION, max_new_tokens=12)
        found = server.client().chat.completions.create(model="pico", messages=shown(data_url(picture)), max_tokens=12)
        assert found.choices[0].message.content == expected.text
        assert found.choices[0].message.role == "assistant"
        assert found.choices[0].finish_reason == expected.finish
        assert (found.object, found.model, len(found.choices)) == ("chat.completion", "pico", 1)
        assert found.usage is not None
        assert found.usage.prompt_tokens == expected.prompt_tokens
        assert found.usage.completion_tokens == len(expected.tokens)
        assert found.usage.total_tokens == expected.prompt_tokens + len(expected.tokens)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "bmp"])
def test_images_of_every_usual_form_are_read(server: Running, form: str) -> None:
    found = server.client().chat.completions.create(model="pico", messages=shown(data_url(PICTURES[0], form)))
    assert found.choices[0].message.content


def test_a_stream_adds_up_to_the_answer_and_ends_with_numbers(server: Running, model: Model) -> None:
    expected = model.generate(PICTURES[0], QUESTION, max_new_tokens=12)
    options = {"max_tokens": 12, "stream": True, "stream_options": {"include_usage": True}}
    pieces = list(server.client().chat.completions.create(model="pico", messages=shown(data_url(PICTURES[0])), **options))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == expected.text
    assert len(pieces) > 4
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 2) + [expected.finish]
    assert {(piece.id, piece.created, piece.object) for piece in pieces} == {
        (pieces[0].id, pieces[0].created, "chat.completion.chunk")
    }
    assert pieces[-1].choices == []
    assert [piece.usage for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == len(expected.tokens)
    assert pieces[-1].timings["first_token"] <= pieces[-1].timings["total"]  # type: ignore[attr-defined]


def test_without_being_asked_a_stream_has_no_numbers(server: Running) -> None:
    stream = server.client().chat.completions.create(model="pico", messages=shown(data_url(PICTURES[0])), stream=True)
    pieces = list(stream)
    assert all(piece.choices for piece in pieces)
    assert all(piece.usage is None for piece in pieces)


@pytest.mark.integration
def test_many_clients_in_an_event_loop_each_get_their_own_answer(server: Running, model: Model) -> None:
    async def ask(client: AsyncOpenAI, index: int) -> str:
        messages = shown(data_url(PICTURES[index % 4]))
        if index % 2:
            whole = await client.chat.completions.create(model="pico", messages=messages, max_tokens=10)
            return whole.choices[0].message.content or ""
        stream = await client.chat.completions.create(model="pico", messages=messages, max_tokens=10, stream=True)
        return "".join([piece.choices[0].delta.content or "" async for piece in stream])

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=SOON) as client:
            return await asyncio.gather(*(ask(client, index) for index in range(24)))

    alone = [model.generate(picture, QUESTION, max_new_tokens=10).text for picture in PICTURES]
    assert asyncio.run(ask_all()) == alone * 6


@pytest.mark.integration
def test_threads_share_a_client(server: Running, model: Model) -> None:
    client = server.client()

    def ask(index: int) -> str | None:
        found = client.chat.completions.create(model="pico", messages=shown(data_url(PICTURES[index % 4])), max_tokens=6)
        return found.choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(16)))
    assert found == [model.generate(picture, QUESTION, max_new_tokens=6).text for picture in PICTURES] * 4


def test_options_reach_the_model(server: Running, model: Model) -> None:
    given = {"max_new_tokens": 10, "temperature": 1.5, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.3, "seed": 7}
    expected = model.generate(PICTURES[0], QUESTION, **given)
    found = server.client().chat.completions.create(
        model="pico",
        messages=shown(data_url(PICTURES[0])),
        max_completion_tokens=10,
        temperature=1.5,
        top_p=0.9,
        seed=7,
        extra_body={"top_k": 20, "repetition_penalty": 1.3},
    )
    assert found.choices[0].message.content == expected.text
    assert expected.text != model.generate(PICTURES[0], QUESTION, max_new_tokens=10).text


def test_an_answer_ends_before_a_stop_string(server: Running, model: Model) -> None:
    whole = model.generate(PICTURES[0], QUESTION, max_new_tokens=12).text
    stop = whole.split()[2]
    found = server.client().chat.completions.create(
        model="pico", messages=shown(data_url(PICTURES[0])), max_tokens=12, stop=[stop, "never"]
    )
    assert found.choices[0].message.content == whole.partition(stop)[0].rstrip()
    assert found.choices[0].finish_reason == "stop"


def test_turns_of_a_conversation_are_all_read(server: Running) -> None:
    def ask(*turns: dict[str, object]) -> tuple[str | None, int]:
        found = server.client().chat.completions.create(model="pico", messages=list(turns), max_tokens=6)
        assert found.usage is not None
        return found.choices[0].message.content, found.usage.prompt_tokens

    first = shown(data_url(PICTURES[0]))[0]
    _, short = ask(first)
    text, long = ask(first, {"role": "assistant", "content": "two"}, {"role": "user", "content": "which are they ?"})
    assert text
    assert long > short


def test_models_are_listed(server: Running) -> None:
    listed = server.client().models.list().data
    assert [model.id for model in listed] == ["pico"]
    assert server.client().models.retrieve("pico").owned_by == "vlmc"
    assert listed[0].sparsity == "2:4"  # type: ignore[attr-defined]
    assert len(listed[0].digest) == 64  # type: ignore[attr-defined]
