"""Options out of range, or of another type, are one line that says what to give."""

from typing import Any

import pytest

from vlmc.runtime.errors import InputError
from vlmc.runtime.options import Options

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_new_tokens": 0}, "max_new_tokens is 0: give at least 1"),
    ({"max_new_tokens": 1.5}, r"max_new_tokens is 1\.5: give a whole number"),
    ({"max_new_tokens": True}, "max_new_tokens is True: give a whole number"),
    ({"temperature": -0.1}, r"temperature -0\.1 is out of range: give 0 \(greedy\) or more"),
    ({"temperature": float("nan")}, "temperature nan is out of range"),
    ({"temperature": float("inf")}, "temperature inf is out of range"),
    ({"temperature": "hot"}, "temperature is 'hot': give a number"),
    ({"top_k": -1}, "top_k is -1: give at least 0"),
    ({"top_p": 0.0}, r"top_p 0\.0 is out of range: give more than 0 and at most 1"),
    ({"top_p": 1.1}, r"top_p 1\.1 is out of range"),
    ({"repetition_penalty": 0}, "repetition_penalty 0 is out of range: give more than 0"),
    ({"seed": -1}, "seed is -1: give at least 0"),
    ({"stop": ""}, "stop '' is no text of 1 to 1000 characters"),
    ({"stop": ["a"] * 17}, "stop has to be a tuple of at most 16 texts"),
    ({"stop": 3}, "stop is a int: give a text, or several"),
    ({"stop": [3]}, "stop 3 is no text"),
    ({"size": 3}, "there is no option size: give max_new_tokens, temperature"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_options_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Options.of(**given)


def test_stop_may_be_one_text_or_several() -> None:
    assert Options.of(stop="END").stop == ("END",)
    assert Options.of(stop=["a", "b"], temperature=1).stop == ("a", "b")
    assert Options.of() == Options()
