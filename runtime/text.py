"""Text to tokens and back, from `tokenizer.json` alone: what transformers' tokenizer does, without transformers."""

import json
import re
from collections.abc import Set
from pathlib import Path
from typing import final

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from vlmc.runtime.errors import InputError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how SentencePiece models write a byte of a character that they lack
_TIDIED = ((" ' ", "'"), *((f" {mark}", mark) for mark in ("n't", "'m", "'s", "'ve", "'re")))
_TIDIED = (*((f" {mark}", mark) for mark in ".?!,"), *_TIDIED)


class Text:
    """A model's tokenizer.

    Raises:
        InputError: `tokenizer.json` is missing or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokenizer.json"
        self._tokenizer = _read(self.path)
        self._tidies = _tidies(folder / "tokenizer_config.json", self._tokenizer)
        self._special = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    def number(self, token: str) -> int | None:
        """Return the id of a token, None where the tokenizer lacks it."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, text: str) -> list[int]:
        """Return the ids of a whole input text, special tokens included."""
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of an answer, without special tokens and without white space around it."""
        return self.tidy(str(self._tokenizer.decode(ids, skip_special_tokens=True)))

    def stream(self) -> "TextStream":
        """Return the text of a new answer, to which tokens are added one by one."""
        return TextStream(self, self._tokenizer, self._special)

    def tidy(self, text: str, *, whole: bool = True) -> str:
        """Return decoded text as it is shown; if it is not the whole text, the part that no later token can change."""
        if not self._tidies:
            return text.strip()
        for spaced, tidy in _TIDIED:
            text = text.replace(spaced, tidy)
        return text.strip() if whole else text.rpartition(" ")[0].strip()


@final
class TextStream:
    """An answer whose tokens come one by one: its `tokens` so far, and what is `shown` of its text."""

    def __init__(self, text: Text, tokenizer: Tokenizer, special: Set[int]) -> None:
        self.tokens: list[int] = []
        self.shown = ""
        self._text, self._tokenizer, self._special = text, tokenizer, special
        self._decoder: DecodeStream | None = DecodeStream()
        self._waiting: list[int] = []
        self._decoded = ""

    def add(self, token: int) -> str:
        """Take the next token; return the text that is settled now: no later token can change it."""
        self.tokens.append(token)
        if token not in self._special:
            self._waiting.append(token)
            self._decode()
        return self._show(self._text.tidy(self._decoded, whole=False))

    def end(self) -> str:
        """Return the rest of the text, after the last token."""
        return self._show(self._text.decode(self.tokens))

    def _decode(self) -> None:
        """Decode the waiting tokens, but never part of a run of bytes: an invalid one changes those before it."""
        if self._decoder is None or _BYTE.fullmatch(self._tokenizer.id_to_token(self._waiting[-1]) or ""):
            return
        try:
            self._decoded += self._decoder.step(self._tokenizer, self._waiting) or ""
        except Exception:  # a decoder that changed text it had given; tokenizers raises plain Exception
            self._decoder = None
        self._waiting = []

    def _show(self, text: str) -> str:
        new = text[len(self.shown) :]
        self.shown += new
        return new


def _read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise InputError(f"{path} is missing: the runtime needs a model with a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises plain Exception
        raise InputError(f"{path} cannot be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tidies(path: Path, tokenizer: Tokenizer) -> bool:
    """Whether spaces before punctuation are removed; transformers never does so for BPE, whatever the file says."""
    if not path.is_file():
        return False
    asked = bool(json.loads(path.read_text(encoding="utf-8")).get("clean_up_tokenization_spaces"))
    return asked and type(tokenizer.model).__name__ != "BPE"
