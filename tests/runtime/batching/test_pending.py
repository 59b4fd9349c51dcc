"""An answer on its way comes in pieces and whole, in threads and in event loops, and ends once."""

import asyncio
from threading import Thread
from time import perf_counter, sleep

import pytest

from vlmc.runtime.answers import Answer, Timings
from vlmc.runtime.batching import Pending
from vlmc.runtime.errors import Cancelled, Closed

ANSWER = Answer("one two", (1, 2), 3, "stop", Timings(0.1, 0.2, 2))


def told(pending: Pending) -> Thread:
    """Answer from another thread, piece by piece."""

    def tell() -> None:
        for piece in ("one", "", " two"):
            sleep(0.01)
            pending.add(piece)
            pending.tell()
        pending.end(ANSWER)

    thread = Thread(target=tell)
    thread.start()
    return thread


def test_pieces_and_answer_in_a_thread() -> None:
    pending = Pending()
    thread = told(pending)
    assert list(pending) == ["one", " two"]
    assert pending.answer() is ANSWER
    assert list(pending) == ["one", " two"]
    thread.join()


def test_who_waits_is_not_woken_after_every_quick_token() -> None:
    pending, heard = Pending(), list[str]()

    def listen() -> None:
        for piece in pending:
            heard.append(piece)

    thread = Thread(target=listen)
    thread.start()
    sleep(0.05)  # it waits
    for piece, now, known in (("1", 10.0, ["1"]), ("2", 10.001, ["1"]), ("3", 10.1, [*"123"]), ("4", None, [*"1234"])):
        pending.add(piece)
        pending.tell(now)
        until = perf_counter() + 10
        while heard != known and perf_counter() < until:
            sleep(0.01)
        sleep(0.02)  # or it hears more than it should
        assert heard == known
    pending.end(ANSWER)
    thread.join()


def test_pieces_and_answer_in_an_event_loop() -> None:
    async def ask() -> tuple[list[str], list[str], Answer]:
        pending = Pending()
        thread = told(pending)

        async def pieces() -> list[str]:
            return [piece async for piece in pending]

        one, other, answer = await asyncio.gather(pieces(), pieces(), pending.wait())
        thread.join()
        return one, other, answer

    assert asyncio.run(ask()) == (["one", " two"], ["one", " two"], ANSWER)


def test_what_is_given_up_ends_with_an_error() -> None:
    pending = Pending()
    pending.add("one")
    pending.cancel()
    assert not pending.end(ANSWER)
    pending.add("two")
    pieces = iter(pending)
    assert next(pieces) == "one"
    with pytest.raises(Cancelled, match="the answer was cancelled"):
        next(pieces)
    with pytest.raises(Cancelled):
        pending.answer()


def test_an_answer_stays_after_a_late_cancel() -> None:
    pending = Pending()
    pending.end(ANSWER)
    pending.cancel()
    assert pending.answer() is ANSWER
    assert pending.done


def test_an_error_reaches_who_waits_in_a_loop() -> None:
    async def ask() -> None:
        pending = Pending()
        asyncio.get_running_loop().call_later(0.01, pending.end, Closed("the batcher was closed"))
        await pending.wait()

    with pytest.raises(Closed, match="the batcher was closed"):
        asyncio.run(ask())


def test_a_closed_loop_does_not_hurt_the_others() -> None:
    pending = Pending()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pending.wait(), 0.01)

    asyncio.run(give_up())
    pending.end(ANSWER)
    assert pending.answer() is ANSWER


def test_who_waits_too_long_is_told() -> None:
    with pytest.raises(TimeoutError, match=r"no answer after 0\.01 s"):
        Pending().answer(0.01)


def test_who_waits_for_the_whole_answer_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = []

    async def wait(pending: Pending) -> Answer:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (woken.append(call), wake(*call)))
        waiting = asyncio.create_task(pending.wait())
        await asyncio.sleep(0)
        for piece in "seven":
            pending.add(piece)
            await asyncio.sleep(0)
        pending.end(ANSWER)
        return await waiting

    assert asyncio.run(wait(Pending())) == ANSWER
    assert len(woken) == 1
