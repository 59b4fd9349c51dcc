"""The benchmark of the batcher: clients ask everything once, turns are taken in order, rows and bars say what was seen."""

from threading import Thread
from time import sleep

import pytest
import serve
from report import report
from serving.clients import Load, Turns, in_turn, load

from vlmc.runtime import Answer, Message
from vlmc.runtime.answers import Timings


def answer(question: Message) -> tuple[Answer, float]:
    sleep(0.005)
    return Answer("x", (len(str(question.content)),), 3, "stop", Timings(0.1, 0.2, 1)), 0.004


@pytest.mark.parametrize("clients", [1, 3])
def test_every_question_is_asked_once_and_in_its_place(clients: int) -> None:
    questions = [Message("user", "a" * number) for number in range(1, 9)]
    found = load(answer, questions, clients)
    assert found.tokens == tuple((number,) for number in range(1, 9))
    assert found.first_text(50) == pytest.approx(4)
    assert found.throughput == pytest.approx(8 / found.seconds)
    assert 8 * 0.005 / clients <= found.seconds


def test_turns_are_taken_in_the_order_of_coming() -> None:
    turns, order = Turns(), list[int]()

    def come(number: int) -> None:
        with turns.next():
            order.append(number)

    threads = [Thread(target=come, args=(number,)) for number in range(6)]
    with turns.next():
        for number, thread in enumerate(threads):
            thread.start()
            while len(turns._waiting) < number + 2:
                sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(6))


def test_waiting_counts_for_the_time_to_the_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    came, had_its_turn = 10.0, 13.0
    monkeypatch.setattr("serving.clients.perf_counter", iter((came, had_its_turn)).__next__)
    assert in_turn(answer)(Message("user", "a"))[1] == pytest.approx(3.004)


def seen(speed: float, first: float, tokens: tuple[int, ...] = (1, 2)) -> list[Load]:
    return [Load(2 / (speed * factor), (first * factor,), (tokens,)) for factor in (1.0, 1.2, 0.9)]


def test_rows_bars_and_table_say_what_was_seen() -> None:
    loads: serve.Loads = {}
    for count, speed, first in ((1, 10.0, 0.1), (16, 40.0, 0.04)):
        loads[serve.DEMO, count, serve.ONE] = seen(10.0, 0.1)
        loads[serve.DEMO, count, serve.THREADS] = seen(12.0, 0.2)
        loads[serve.DEMO, count, serve.BATCHER] = seen(speed, first)
    rows = [row for count in (1, 16) for row in serve._rows(serve.DEMO, count, loads)]
    bars = serve._bars([serve.DEMO], [1, 16], loads)
    assert [(bar.value, bar.holds) for bar in bars] == [(1, True), (4, True), (1, True), (0.4, True)]
    found = report("line", rows, bars, {})
    row = found.find("demo, 16 clients: batcher", serve.THROUGHPUT)
    assert row is not None
    assert (row.value, row.ratio, row.baseline) == (40, 4, "demo, 16 clients: one at a time")
    assert "| demo, 16 clients | 10, 100 / 100 | 12, 200 / 200 | 40, 40 / 40 | 4.00 (0.00) |" in serve.table(found)


def test_another_answer_breaks_the_bar() -> None:
    loads: serve.Loads = {(serve.DEMO, 4, one): seen(1, 1, (1, 2)) for one in serve.CONTESTANTS}
    loads[serve.DEMO, 4, serve.BATCHER] = seen(1, 1, (1, 3))
    assert [bar.holds for bar in serve._bars([serve.DEMO], [4], loads)] == [False]
