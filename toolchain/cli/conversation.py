"""Answers on the terminal: text as it comes, and how long it took; and a conversation, turn by turn."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, final
from unicodedata import bidirectional, category

import typer

from vlmc.runtime.answers import Answer
from vlmc.runtime.errors import InputError
from vlmc.runtime.messages import Message
from vlmc.runtime.model import Model
from vlmc.toolchain.cli.options import Terminal
from vlmc.toolchain.settings import RunSettings

Pieces = Generator[str, None, Answer]
_PROMPT = "> "
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Characters of Unicode that reorder those after them."""


def described(answer: Answer) -> dict[str, Any]:
    """Return an answer for `--json`; times are in seconds."""
    timings = answer.timings
    return {
        "answer": answer.text,
        "finish": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": len(answer.tokens),
        "first_token": round(timings.first_token, 4),
        "seconds": round(timings.total, 4),
        "tokens_per_second": None if timings.tokens_per_second is None else round(timings.tokens_per_second, 1),
    }


def answer_once(terminal: Terminal, pieces: Pieces) -> None:
    """Print one answer as it comes, or as JSON when it is whole."""
    if terminal.as_json or terminal.quiet:
        found = described(_whole(pieces, lambda piece: None))
        terminal.result(found, lambda: None)
    else:
        terminal.result({}, lambda: _show(pieces))


@final
class Conversation:
    """Turns about the same images, which the first one shows.

    On a terminal Ctrl-C ends an answer, which is then forgotten with its question, and between answers the conversation.
    """

    def __init__(self, model: Model, images: Sequence[Path], options: RunSettings, seed: int) -> None:
        self._model, self._images, self._options, self._seed = model, images, options, seed
        self._turns: list[Message] = []

    def hold(self, terminal: Terminal, first: str | None) -> None:
        """Answer the lines of standard input, after a first question if there is one, until they end.

        Raises:
            InputError: a question cannot be answered, and it does not come from a terminal, where one may ask again.
        """
        if terminal.as_json or terminal.quiet:
            found = [{"prompt": question} | described(self._answer(question, lambda _: None)) for question in _lines(first)]
            terminal.result({"turns": found}, lambda: None)
        else:
            terminal.result({}, lambda: self._talk(first))

    def _talk(self, first: str | None) -> None:
        for question in _lines(first):
            try:
                _tell(self._answer(question, _print))
            except (InputError, KeyboardInterrupt) as error:
                if sys.stdin is None or not sys.stdin.isatty():
                    raise
                print(f"vlmc: {error}" if str(error) else "", file=sys.stderr)

    def _answer(self, question: str, show: Callable[[str], None]) -> Answer:
        """Answer a question; what was said is remembered, and a question that cannot be answered is not."""
        shown = [] if self._turns else list(self._images)
        asked = Message("user", [*shown, question])
        pieces = self._model.stream_chat([*self._turns, asked], seed=self._seed, **self._options.model_dump())
        answer = _whole(pieces, show)
        self._turns += [asked, Message("assistant", answer.text)]
        return answer


def _lines(first: str | None) -> Iterator[str]:
    """Yield the questions; on a terminal each is asked for."""
    if first is not None:
        yield first
    if sys.stdin is None:
        return
    if sys.stdin.isatty():
        yield from _typed()
    else:
        yield from (line.strip() for line in sys.stdin if line.strip())


def _typed() -> Iterator[str]:
    import readline  # noqa: F401  # input() then has a history, and keys to edit a line

    while True:
        try:
            line = input(_PROMPT)
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.strip():
            yield line.strip()


def _whole(pieces: Pieces, show: Callable[[str], None]) -> Answer:
    while True:
        try:
            show(next(pieces))
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def _show(pieces: Pieces) -> None:
    _tell(_whole(pieces, _print))


def _print(piece: str) -> None:
    print("".join(map(_harmless, piece)), end="", flush=True)


def _harmless(character: str) -> str:
    """Escape what a terminal would obey: control characters other than newline and tab, and changes of direction."""
    obeyed = category(character) == "Cc" or bidirectional(character) in _DIRECTIONS
    return character.encode("unicode_escape").decode("ascii") if obeyed and character not in "\n\t" else character


def _tell(answer: Answer) -> None:
    """End the line of an answer, and say how long it took, where the answer itself is not."""
    print(flush=True)
    timings = answer.timings
    speed = "" if timings.tokens_per_second is None else f", then {timings.tokens_per_second:.1f} tokens/s"
    typer.echo(f"first token after {timings.first_token:.2f} s{speed}; {len(answer.tokens)} tokens", err=True)
