"""Questions join the batch in their order, and together where that costs nobody anything."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from tests.runtime.batching.material import SHORT, alone, question
from vlmc.runtime import Batcher, Message, Model, Options
from vlmc.runtime.batching import Pending
from vlmc.runtime.batching import batcher as batching
from vlmc.runtime.batching.reading import Reading
from vlmc.runtime.batching.rows import Row
from vlmc.runtime.sessions import Array, Bound


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


@pytest.mark.integration
def test_a_piece_is_heard_while_the_next_token_is_made(llava: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, asked, heard = llava.engine._decoder, list[Pending](), Event()

    class Watched(Bound):
        def __init__(self, bound: Bound) -> None:
            super().__init__(decoder)
            self._bound = bound

        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            if asked and asked[0]._pieces:
                assert heard.wait(20), "who waits was not told before the decoder ran"
            return self._bound.run(feeds)

    before = decoder.bound
    monkeypatch.setattr(decoder, "bound", lambda places: Watched(before(places)))
    with Batcher(llava) as batcher:
        asked.append(batcher.ask([question(0)], Options(max_new_tokens=12)))
        assert next(iter(asked[0]))
        heard.set()
        assert len(asked[0].answer(20).tokens) == 12
