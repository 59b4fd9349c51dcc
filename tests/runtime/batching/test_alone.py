"""Who asks alone is answered in his own thread, and in the batch as soon as others ask."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread, get_ident
from typing import Any

import pytest

from tests.runtime.batching.material import SHORT, alone, question, until
from vlmc.runtime import Batcher, CheckFailed, Closed, InputError, Model, Options
from vlmc.runtime.batching import batcher as batching
from vlmc.runtime.batching.running import Running

LONG = Options(max_new_tokens=20)


@pytest.fixture
def threads(llava: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that run the graphs, run by run."""
    found: list[int] = []
    for name in ("prefill", "step"):
        before = getattr(llava.engine, name)
        monkeypatch.setattr(llava.engine, name, lambda *given, f=before, n=name: (found.append(get_ident()), f(*given))[1])
    return found


def test_a_question_alone_is_answered_here(llava: Model, threads: list[int]) -> None:
    expected = alone(llava, 0, 4)
    threads.clear()
    with Batcher(llava) as batcher:
        pieces = batcher.stream_chat([question(0)], SHORT)
        assert len(threads) == 1
        text = ""
        while True:
            try:
                text += next(pieces)
                assert batcher.state().running == 1
            except StopIteration as end:
                answer = end.value
                break
        assert (answer.tokens, answer.text) == (expected, text.strip())
        assert batcher.chat([question(0)], SHORT).tokens == expected
        assert set(threads) == {get_ident()}
        state = batcher.state()
        assert (state.answered, state.tokens, state.running, state.queued) == (2, 8, 0, 0)


def test_it_joins_the_batch_when_others_come(llava: Model, threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    over, before = list[int](), Running.take_over
    monkeypatch.setattr(Running, "take_over", lambda running, row, state: (over.append(1), before(running, row, state))[1])
    expected = [alone(llava, number, 20) for number in range(4)]
    threads.clear()
    with Batcher(llava) as batcher:
        pieces = batcher.stream_chat([question(0)], LONG)
        first = next(pieces)
        others = [batcher.ask([question(number)], LONG) for number in (1, 2)]
        third = batcher.stream_chat([question(3)], LONG)
        rest, answer = whole(pieces)
        assert answer.tokens == expected[0]
        assert (first + rest).strip() == answer.text
        assert [pending.answer(20).tokens for pending in others] == expected[1:3]
        assert whole(third)[1].tokens == expected[3]
        assert over == [1]
        assert len(set(threads)) == 2
        until(lambda: batcher.state().running == 0)
        assert batcher.state().answered == 4


def test_one_that_cannot_join_takes_nobody_with_it(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise MemoryError("no room")

    with Batcher(llava) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(Running, "take_over", full)
            pieces = batcher.stream_chat([question(0)], LONG)
            next(pieces)
            other = batcher.ask([question(1)], LONG)
            with pytest.raises(CheckFailed, match="the question cannot be answered: no room"):
                whole(pieces)
            with suppress(CheckFailed):  # it was read with the one that could not join, or later
                other.answer(20)
        assert batcher.ask([question(2)], SHORT).answer(20).tokens == alone(llava, 2, 4)


def test_nobody_is_taken_to_ask_alone_just_after_others(
    llava: Model, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_CROWDED", 60)
    with Batcher(llava) as batcher:
        for pending in [batcher.ask([question(number)], LONG) for number in range(3)]:
            pending.answer(20)
        threads.clear()
        assert batcher.chat([question(0)], SHORT).tokens == alone(llava, 0, 4)
        assert get_ident() not in threads[:4]


def test_many_threads_stream(llava: Model) -> None:
    expected = [alone(llava, number, 8) for number in range(24)]
    options = Options(max_new_tokens=8)
    with Batcher(llava, max_batch=4) as batcher, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: batcher.chat([question(number)], options).tokens, range(24)))
        assert found == expected
        until(lambda: batcher.state().running == 0)
        assert batcher.state().answered == 24


@pytest.mark.parametrize("pieces", [0, 1, 3])
@pytest.mark.parametrize("beside", [False, True])
def test_who_stops_gives_it_up(llava: Model, pieces: int, beside: bool) -> None:
    with Batcher(llava) as batcher:
        stream = batcher.stream_chat([question(0)], LONG)
        other = batcher.ask([question(1)], SHORT) if beside else None
        for _ in range(pieces):
            next(stream)
        stream.close()
        if other is not None:
            assert other.answer(20).tokens == alone(llava, 1, 4)
        until(lambda: batcher.state().running == 0)
        state = batcher.state()
        assert state.cancelled + state.answered == 1 + beside
        assert state.cancelled == 1 or beside  # in the batch it goes on, and may be whole before
        assert batcher.chat([question(1)], SHORT).tokens == alone(llava, 1, 4)


def test_who_is_slow_or_forgets_his_stream_blocks_nobody(llava: Model) -> None:
    with Batcher(llava, max_batch=1) as batcher:
        forgotten = batcher.stream_chat([question(0)], LONG)
        assert batcher.chat([question(1)], SHORT).tokens == alone(llava, 1, 4)
        assert batcher.state().running == 1
        del forgotten
        assert batcher.state().running == 0


def test_errors_are_those_of_a_pending_answer(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise ValueError("no such thing")

    with Batcher(llava, max_new_tokens=8) as batcher:
        with pytest.raises(InputError, match="give at most 8"):
            batcher.stream_chat([question(0)], LONG)
        for name in ("step", "prefill"):
            monkeypatch.setattr(llava.engine, name, broken)
            with pytest.raises(CheckFailed, match="the question cannot be answered: no such thing"):
                batcher.chat([question(0)], SHORT)
        assert (batcher.state().failed, batcher.state().running) == (2, 0)


def test_an_interrupted_thread_leaves_the_batcher_whole(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> Any:
        raise KeyboardInterrupt

    with Batcher(llava) as batcher:
        for name in ("step", "prefill"):
            with monkeypatch.context() as patch:
                patch.setattr(llava.engine, name, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    batcher.chat([question(0)], SHORT)
        assert (batcher.state().cancelled, batcher.state().running) == (2, 0)
        assert batcher.chat([question(1)], SHORT).tokens == alone(llava, 1, 4)


def test_closing_ends_it_or_waits_for_it(llava: Model) -> None:
    batcher = Batcher(llava)
    stream = batcher.stream_chat([question(0)], LONG)
    next(stream)
    batcher.close()
    with pytest.raises(Closed, match="the batcher was closed before the answer was whole"):
        whole(stream)
    with pytest.raises(Closed, match="the batcher is closed: make another one"):
        batcher.stream_chat([question(0)], SHORT)

    batcher = Batcher(llava)
    stream = batcher.stream_chat([question(0)], LONG)
    next(stream)
    closing = Thread(target=batcher.close, args=(20,))
    closing.start()
    until(lambda: batcher._closing)
    assert whole(stream)[1].tokens == alone(llava, 0, 20)
    closing.join(20)
    assert not closing.is_alive()


def whole(pieces: Any) -> tuple[str, Any]:
    """Return the text of all pieces, and the answer."""
    text = ""
    while True:
        try:
            text += next(pieces)
        except StopIteration as end:
            return text, end.value
