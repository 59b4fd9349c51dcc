"""What a terminal is told of an answer: its text, but nothing that a terminal would obey."""

from collections.abc import Generator

import pytest

from vlmc.runtime.answers import Answer, Timings
from vlmc.toolchain.cli.conversation import answer_once
from vlmc.toolchain.cli.options import Terminal


def pieces(*texts: str) -> Generator[str, None, Answer]:
    yield from texts
    return Answer("".join(texts), (1, 2), 3, "stop", Timings(0.1, 0.2, 1))


def test_what_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    answer_once(Terminal(as_json=False, quiet=False, seed=0), pieces("a \x1b[2J\rb\n\t", "c\x9b5n\u202e \u2066d"))
    assert capsys.readouterr().out == "a \\x1b[2J\\rb\n\tc\\x9b5n\\u202e \\u2066d\n"


def test_other_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Grüße 你好 👨\u200d👩\u200d👧 ﷽ 1\u00a0000"
    answer_once(Terminal(as_json=False, quiet=False, seed=0), pieces(text))
    assert capsys.readouterr().out == text + "\n"
