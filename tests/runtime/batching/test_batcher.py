"""A batcher answers token for token as the model does alone, whatever comes, goes and fails beside it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime import Batcher, Busy, Cancelled, CheckFailed, Closed, InputError, Message, Model, Options
from vlmc.runtime.batching import Pending
from vlmc.runtime.batching import batcher as batching
from vlmc.runtime.batching.reading import Reading
from vlmc.runtime.batching.rows import Row

SHAPES = ((32, 32), (90, 40), (36, 70), (20, 110))
SHORT = Options(max_new_tokens=4)


@pytest.fixture
def endless(deployed: Reference) -> Iterator[Model]:
    """The exported model, going on after the end of an answer."""
    forever = deployed.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(deployed.folder, forever, deployed.folder / "onnx", threads=1, vision_bytes=0) as model:
        yield model


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    from tests.runtime.conftest import refer

    made = refer("llava", tmp_path_factory.getbasetemp())
    forever = made.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(made.folder, forever, made.folder / "onnx", threads=1) as model:
        yield model


def question(number: int) -> Message:
    """Return one of many questions, of unlike lengths, about images of unlike shapes."""
    words = " ".join(["what", "is", "the", "digit", "in", "a"][: 1 + number % 6])
    return Message("user", [pico.picture(number, *SHAPES[number % 4]), f"{words} {pico.QUESTIONS[number % 3]}"])


class Held:
    """Holds the engine's steps until it is let go."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls, before = Event(), 0, model.engine.step

        def step(*given: Any) -> Any:
            self.calls += 1
            assert self.go.wait(20)
            return before(*given)

        monkeypatch.setattr(model.engine, "step", step)


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def alone(model: Model, number: int, tokens: int) -> tuple[int, ...]:
    return model.chat([question(number)], max_new_tokens=tokens).tokens


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


def test_questions_are_let_in_in_their_order(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    let_in, add = list[Pending](), Reading.add

    def watched(reading: Reading, rows: list[Row]) -> None:
        let_in.extend(row.pending for row in rows)
        add(reading, rows)

    monkeypatch.setattr(Reading, "add", watched)
    with Batcher(llava, max_batch=2) as batcher:
        asked = [batcher.ask([question(n)], SHORT) for n in range(10)]
        for pending in asked:
            pending.answer(30)
    assert let_in == asked


class Preparing:
    """Holds the preparation of one question, and notes which questions are read together."""

    def __init__(self, model: Model, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun, self.together = Event(), Event(), list[int]()
        prepare, add = model.prepare, Reading.add

        def slowly(messages: list[Message], options: Options) -> Any:
            if messages[0].parts[1:] == question(held).parts[1:]:
                self.begun.set()
                assert self.go.wait(20)
            return prepare(messages, options)

        def watched(reading: Reading, rows: list[Row]) -> None:
            self.together += [len(rows)] if rows else []
            add(reading, rows)

        monkeypatch.setattr(model, "prepare", slowly)
        monkeypatch.setattr(Reading, "add", watched)


def test_questions_that_are_nearly_ready_are_read_with_those_that_wait(
    llava: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_MOMENT", 20)
    expected = [alone(llava, number, 4) for number in (0, 1)]
    preparing = Preparing(llava, 1, monkeypatch)
    with Batcher(llava) as batcher, ThreadPoolExecutor(1) as pool:
        later = pool.submit(batcher.ask, [question(1)], SHORT)
        assert preparing.begun.wait(20)
        first = batcher.ask([question(0)], SHORT)
        preparing.go.set()
        assert [one.answer(20).tokens for one in (first, later.result(20))] == expected
    assert preparing.together == [2]


def test_nobody_waits_for_a_question_that_takes_long_to_prepare(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [alone(llava, number, 4) for number in (0, 1)]
    preparing = Preparing(llava, 1, monkeypatch)
    with Batcher(llava) as batcher, ThreadPoolExecutor(1) as pool:
        later = pool.submit(batcher.ask, [question(1)], SHORT)
        assert preparing.begun.wait(20)
        first = batcher.ask([question(0)], SHORT).answer(20)
        preparing.go.set()
        assert [first.tokens, later.result(20).answer(20).tokens] == expected
    assert preparing.together == [1, 1]


def test_who_asks_alone_one_question_after_the_other_waits_for_nobody(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MOMENT", 60)
    expected, second, end = alone(llava, 1, 4), list[Pending](), Pending.end

    def ask_again(pending: Pending, answer: Any) -> bool:
        if not second:  # before the batcher looks for questions
            second.append(batcher.ask([question(1)], SHORT))
        return end(pending, answer)

    monkeypatch.setattr(Pending, "end", ask_again)
    with Batcher(llava) as batcher:
        batcher.ask([question(0)], SHORT).answer(20)
        assert second[0].answer(20).tokens == expected


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
