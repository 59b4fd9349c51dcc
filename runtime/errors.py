"""Every way vlmc fails, and the exit code of each.

    VlmcError
    ├── CheckFailed            1   a check does not hold: a pattern is broken, parity is lost
    ├── InputError             2   wrong usage or unusable input
    ├── EnvironmentLacks       3   a package, provider or device is missing; the message says how to get it
    └── Unanswered             1   a question was given up: Busy, Cancelled, Closed

A message is one line: what is wrong, where, and how to mend it.
"""

UNUSABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What libraries raise on files whose values they do not check."""
MOST = 300
"""Characters of another program's message that are shown."""
_LONGEST = 1_500
"""Bytes of a message of vlmc's own, in UTF-8: what it quotes may be of any length."""


def one_line(error: BaseException | str, most: int = MOST) -> str:
    """Return a message on one line, cut to its first characters, without what a terminal would obey."""
    return shortened(" ".join(str(error).split()), most)


def shortened(text: str, most: int = MOST) -> str:
    """Return a text that is safe to print: cut, and with control characters and what is not Unicode as escapes."""
    return _printable(text if len(text) <= most else f"{text[:most]}...")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


class VlmcError(Exception):
    """The base of all errors that vlmc raises on purpose; ``str()`` is one line of bounded length, without control marks."""

    exit_code = 1

    def __str__(self) -> str:
        text = _printable(super().__str__())
        content = text.encode()
        if len(content) <= _LONGEST:
            return text
        ends = content[: _LONGEST // 2], content[-_LONGEST // 2 :]  # what is wrong stands first, how to mend it last
        return " ... ".join(end.decode(errors="ignore") for end in ends)


class CheckFailed(VlmcError):
    """A check that vlmc makes of its own work, or of an artifact, does not hold."""

    exit_code = 1


class InputError(VlmcError):
    """The user's input or usage is wrong."""

    exit_code = 2


class EnvironmentLacks(VlmcError):
    """Something that the step needs is not installed, or this machine does not have it."""

    exit_code = 3


class Unanswered(VlmcError):
    """A question, right in itself, gets no answer."""

    exit_code = 1


class Busy(Unanswered):
    """As many questions wait as may wait: ask again later."""


class Cancelled(Unanswered):
    """Who asked gave the question up."""


class Closed(Unanswered):
    """The model or the batcher was closed before the answer was whole."""
