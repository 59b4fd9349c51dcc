"""Control tokens: what users write is text, and never becomes one of them."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, final


@final
class Controls:
    """The control tokens of a model, such as `<eos>` or `<image>`.

    `folded` are those that a tokenizer also finds in other spellings, for it looks for them in normalized text.
    """

    def __init__(self, tokens: Iterable[str] = (), folded: Iterable[str] = ()) -> None:
        self._exact, self._folded = set(tokens), set(folded)
        self._pattern = _pattern(frozenset(self._exact))
        self._any_case = _pattern(frozenset(_fold(token) for token in self._folded), re.IGNORECASE)

    @classmethod
    def of(cls, added: Iterable[Any], *more: str) -> "Controls":
        """Return those of a tokenizer, given its added tokens, and `more`."""
        special = [token for token in added if token.special]
        return cls([*(token.content for token in special), *more], (token.content for token in special if token.normalized))

    def as_text(self, text: str) -> str:
        """Return the text with a space inside everything that would become a control token: `< eos>`."""
        if self._any_case is not None and self._any_case.search(_fold(text)):
            text = unicodedata.normalize("NFKC", text)
            text = _broken(self._any_case, text)
        return text if self._pattern is None else _broken(self._pattern, text)

    def with_tokens(self, *tokens: str) -> "Controls":
        """Return these and more."""
        return Controls(self._exact.union(tokens), self._folded)


def without(mark: str, text: str) -> str:
    """Return the text without its marks; where the text around one spells another mark, that is text."""
    return Controls([mark]).as_text(text.replace(mark, ""))


def _broken(pattern: re.Pattern[str], text: str) -> str:
    while (broken := pattern.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)) != text:  # may leave another one
        text = broken
    return text


@lru_cache(maxsize=64)
def _pattern(tokens: frozenset[str], flags: int = 0) -> re.Pattern[str] | None:
    """Return what finds tokens, the longest first; a single character cannot be broken, and is no mark of anything."""
    longest = sorted((token for token in tokens if len(token) > 1), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest)), flags) if longest else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
