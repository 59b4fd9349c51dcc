"""A batcher answers token for token as the model does alone, whatever comes, goes and fails beside it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests import pico
from tests.runtime.batching.material import SHORT, Held, alone, question, until
from tests.runtime.conftest import Reference
from vlmc.runtime import Batcher, Busy, Cancelled, CheckFailed, Closed, InputError, Message, Model, Options
from vlmc.runtime.batching import Pending


@pytest.fixture
def endless(deployed: Reference) -> Iterator[Model]:
    """The exported model, going on after the end of an answer."""
    forever = deployed.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(deployed.folder, forever, deployed.folder / "onnx", threads=1, vision_bytes=0) as model:
        yield model


def at_random(model: Model, seed: int, count: int, chunk: int) -> None:
    """Ask at random times for answers of random lengths, give some up on the way, and compare the rest."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 24, count).tolist()
    asked: list[Pending] = []
    with Batcher(model, max_batch=5, max_queue=count, chunk=chunk) as batcher:
        for number, length in enumerate(lengths):
            asked.append(batcher.ask([question(number)], Options(max_new_tokens=length)))
            if draw.random() < 0.3:
                time.sleep(draw.random() * 0.02)
            if draw.random() < 0.2:
                asked[draw.integers(0, len(asked))].cancel()
        for number, (pending, length) in enumerate(zip(asked, lengths, strict=True)):
            try:
                answer = pending.answer(60)
            except Cancelled:
                assert alone(model, number, length)[:1]  # it was no wrong question
                continue
            assert answer.tokens == alone(model, number, length)
            assert "".join(pending) == answer.text
        until(lambda: batcher.state().running == 0)
        state = batcher.state()
        assert state.answered + state.cancelled == count
        assert (state.queued, state.failed, state.refused) == (0, 0, 0)


@pytest.mark.integration
@pytest.mark.parametrize("chunk", [6, 60])
def test_answers_are_those_of_the_model_alone(deployed: Reference, endless: Model, chunk: int) -> None:
    at_random(endless, 0, 10, chunk)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 13))
def test_answers_are_those_of_the_model_alone_again(deployed: Reference, endless: Model, seed: int) -> None:
    at_random(endless, seed, 40, int(np.random.default_rng(seed).integers(3, 120)))


@pytest.mark.integration
def test_sampled_answers_and_those_with_penalties_too(llava: Model) -> None:
    options = [Options(12, 1.0 + n, 5 * n, 0.9, 1.0 + n / 4, seed=n) for n in range(4)]
    with Batcher(llava) as batcher:
        found = [batcher.ask([question(n)], given) for n, given in enumerate(options)]
        for n, (pending, given) in enumerate(zip(found, options, strict=True)):
            keywords = {"max_new_tokens": 12, "temperature": given.temperature, "top_k": given.top_k, "top_p": 0.9}
            expected = llava.chat([question(n)], **keywords, repetition_penalty=given.repetition_penalty, seed=n)
            assert pending.answer(20) == expected


def test_a_stop_string_ends_one_answer_and_no_other(llava: Model) -> None:
    whole = llava.chat([question(0)], max_new_tokens=8)
    word = whole.text.split()[3]
    with Batcher(llava) as batcher:
        cut = batcher.ask([question(0)], Options(8, stop=(word,)))
        other = batcher.ask([question(1)], Options(8))
        assert cut.answer(20).text == whole.text[: whole.text.index(word)].strip()
        assert cut.answer().finish == "stop"
        assert other.answer(20).tokens == alone(llava, 1, 8)


def test_many_threads_ask_one_batcher(llava: Model) -> None:
    expected = [alone(llava, number, 6) for number in range(12)]
    with Batcher(llava, max_batch=4) as batcher, ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda number: batcher.ask([question(number)], Options(6)).answer(30).tokens, range(12))
        assert list(found) == expected


def test_a_queue_that_is_full_refuses_and_a_cancel_frees_a_place(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(llava, monkeypatch)
    with Batcher(llava, max_batch=1, max_queue=2) as batcher:
        running = batcher.ask([question(0)], SHORT)
        until(lambda: held.calls == 1)
        waiting = [batcher.ask([question(n)], SHORT) for n in (1, 2)]
        with pytest.raises(Busy, match="2 questions wait already: ask again later"):
            batcher.ask([question(3)], SHORT)
        waiting[0].cancel()
        waiting.append(batcher.ask([question(3)], SHORT))
        assert (batcher.state().queued, batcher.state().running, batcher.state().refused) == (2, 1, 1)
        running.cancel()
        held.go.set()
        assert waiting[1].answer(20).tokens == alone(llava, 2, 4)
        assert waiting[2].answer(20).tokens == alone(llava, 3, 4)
        state = batcher.state()
    assert (state.answered, state.cancelled, state.tokens) == (2, 2, 8)


def test_wrong_questions_are_refused_at_once(llava: Model) -> None:
    with Batcher(llava, max_queue=1, max_prompt=30, max_new_tokens=8) as batcher:
        for _ in range(3):  # they take no place in the queue
            with pytest.raises(InputError, match="the last turn has no text"):
                batcher.ask([Message("user", [pico.picture(0)])])
        with pytest.raises(InputError, match=r"the question and its images take \d+ tokens: at most 30 may be asked"):
            batcher.ask([Message("user", [pico.picture(0), "what is the digit " * 6])])
        with pytest.raises(InputError, match="max_new_tokens is 9: give at most 8"):
            batcher.ask([question(0)], Options(9))
        assert batcher.state().queued == 0
    with pytest.raises(InputError, match="max_batch is 0: give at least 1"):
        Batcher(llava, max_batch=0)


def test_closing_ends_what_is_pending(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(llava, monkeypatch)
    batcher = Batcher(llava, max_batch=1)
    asked = [batcher.ask([question(n)], SHORT) for n in range(3)]
    until(lambda: held.calls == 1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close)
        for pending in asked:
            with pytest.raises(Closed, match="the batcher was closed before the answer was whole"):
                pending.answer(20)
        held.go.set()
        closing.result(20)
    with pytest.raises(Closed, match="the batcher is closed: make another one"):
        batcher.ask([question(0)])
    batcher.close()


def test_closing_may_wait_for_what_runs(llava: Model) -> None:
    batcher = Batcher(llava, max_batch=1)
    asked = [batcher.ask([question(n)], SHORT) for n in range(3)]
    batcher.close(wait=30)
    assert [pending.answer(0).tokens for pending in asked] == [alone(llava, n, 4) for n in range(3)]


def test_a_closed_model_ends_the_questions_and_not_the_batcher(deployed: Reference) -> None:
    model = Model.from_graphs(deployed.folder, deployed.deployment, deployed.folder / "onnx", threads=1)
    with Batcher(model) as batcher:
        model.close()
        for _ in range(2):
            with pytest.raises(Closed, match=r"is closed: load the model again"):
                batcher.ask([question(0)]).answer(20)
        assert batcher.state().failed == 2


def test_one_bad_question_does_not_spoil_those_beside_it(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = llava.engine.prefill

    def prefill(batch: Any) -> Any:
        if batch.lengths_B.tolist().count(bad):
            raise ValueError("no such thing")
        return before(batch)

    bad = llava.prepare([question(5)], SHORT).length
    monkeypatch.setattr(llava.engine, "prefill", prefill)
    with Batcher(llava, max_batch=8) as batcher:
        asked = {number: batcher.ask([question(number)], SHORT) for number in (0, 1, 5, 7)}
        with pytest.raises(CheckFailed, match="the question cannot be answered: no such thing"):
            asked.pop(5).answer(20)
        for number, pending in asked.items():
            assert pending.answer(20).tokens == alone(llava, number, 4)


def test_a_long_prompt_is_read_while_others_are_answered(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("_extend", "step"):
        before = getattr(llava.engine, name)
        monkeypatch.setattr(llava.engine, name, lambda *given, n=name, f=before: (done.append(n), f(*given))[1])
    long = Message("user", [pico.picture(1), "what is the digit in a " * 3])
    with Batcher(llava, chunk=8) as batcher:
        one = batcher.ask([question(0)], Options(20))
        until(lambda: "step" in done)
        other = batcher.ask([long], SHORT)
        assert other.answer(20).tokens == llava.chat([long], max_new_tokens=4).tokens
        assert one.answer(20).tokens == alone(llava, 0, 20)
