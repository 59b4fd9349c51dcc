"""Who waits alone runs the model in the own thread; whoever comes, goes or stops on the way, all are answered."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.runtime.batching.material import SHORT, alone, question, until
from vlmc.runtime import Batcher, CheckFailed, Closed, Model, Options


class Watched:
    """Notes which threads make the engine's steps, and may do something at each."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[str] = []
        self.at_step: Any = lambda: None
        before = model.engine.step

        def step(*given: Any) -> Any:
            self.threads.append(threading.current_thread().name)
            self.at_step()
            return before(*given)

        monkeypatch.setattr(model.engine, "step", step)


@pytest.fixture
def watched(llava: Model, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(llava, monkeypatch)


@pytest.mark.parametrize("streaming", [False, True])
def test_one_who_waits_alone_runs_the_model(
    llava: Model, watched: Watched, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(llava, number, 4) for number in range(3)]
    monkeypatch.setattr("vlmc.runtime.batching.batcher._AWAY", 20)  # the batcher's own thread leaves it to the others
    with Batcher(llava) as batcher:
        batcher.ask([question(9)], SHORT).answer()  # by whom ever
        watched.threads.clear()
        for number in range(3):
            pending = batcher.ask([question(number)], SHORT)
            if streaming:
                assert "".join(pending) == pending.answer().text
            assert pending.answer().tokens == expected[number]
        assert set(watched.threads) == {threading.current_thread().name}


def test_nobody_needs_to_wait(llava: Model, watched: Watched) -> None:
    with Batcher(llava) as batcher:
        pending = batcher.ask([question(0)], SHORT)
        until(lambda: pending.done)
        assert asyncio.run(pending.wait()).tokens
        assert set(watched.threads) == {"vlmc-batcher"}


def test_one_who_stops_reading_holds_nobody_up(llava: Model) -> None:
    with Batcher(llava) as batcher:
        left = batcher.ask([question(0)], Options(16))
        next(iter(left))
        other = batcher.ask([question(1)], SHORT)
        until(lambda: other.done and left.done)
        assert left.answer().tokens == alone(llava, 0, 16)
        assert other.answer().tokens == alone(llava, 1, 4)


def test_the_others_go_on_when_the_one_who_ran_the_model_has_an_answer(llava: Model) -> None:
    lengths = [2, 12, 5, 9, 3, 16, 1, 7]
    with Batcher(llava, max_batch=4) as batcher, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> Any:
            pending = batcher.ask([question(number)], Options(lengths[number]))
            if number % 2:
                for _ in pending:
                    time.sleep(0.003)
            return pending.answer().tokens

        for _ in range(5):
            assert list(pool.map(ask, range(8))) == [alone(llava, number, length) for number, length in enumerate(lengths)]
        until(lambda: batcher.state().running == 0)


def test_ctrl_c_in_the_thread_that_runs_the_model_ends_its_questions_and_no_more(
    llava: Model, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    monkeypatch.setattr("vlmc.runtime.batching.batcher._AWAY", 20)
    with Batcher(llava) as batcher:
        batcher.ask([question(9)], SHORT).answer()
        watched.at_step = interrupt
        pending = batcher.ask([question(0)], SHORT)
        with pytest.raises(KeyboardInterrupt):
            pending.answer()
        with pytest.raises(CheckFailed, match="interrupted between two tokens"):
            pending.answer()
        watched.at_step = lambda: None
        assert batcher.ask([question(1)], SHORT).answer().tokens == alone(llava, 1, 4)


def test_a_batcher_closes_only_after_the_one_who_runs_the_model_has_left(llava: Model, watched: Watched) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go.wait(20)

    batcher = Batcher(llava)
    watched.at_step = hold
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(lambda: batcher.ask([question(0)], SHORT).answer())
        assert inside.wait(20)
        closed = pool.submit(batcher.close)
        time.sleep(0.05)
        assert not closed.done()
        go.set()
        closed.result(20)
        assert isinstance(asked.exception(20), Closed)
    assert batcher.state().running == 0
