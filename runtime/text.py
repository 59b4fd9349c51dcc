"""Text to tokens and back, from `tokenizer.json` alone: what transformers' tokenizer does, without transformers."""

import json
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import final

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from vlmc.runtime.controls import Controls
from vlmc.runtime.errors import InputError, one_line, shortened
from vlmc.runtime.json_text import read_json

_ADDED = re.compile(r'"added_tokens"\s*:\s*\[')
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
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}
        self._apart = {number for number, token in added.items() if token.special and not token.single_word}
        self.controls = Controls.of(added.values())

    def number(self, token: str) -> int | None:
        """Return the id of a token, None where the tokenizer lacks it."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def stands_apart(self, number: int) -> bool:
        """Whether a token is split off a text before all else: how many there are changes nothing around them."""
        return number in self._apart

    def encode(self, text: str) -> list[int]:
        """Return the ids of a whole input text, special tokens included.

        Raises:
            InputError: the tokenizer is damaged in a way that shows only now, such as a model without its unknown token.
        """
        try:
            return list(self._tokenizer.encode(text).ids)
        except Exception as error:  # the tokenizers package raises plain Exception
            raise InputError(f"{self.path} cannot be used: {one_line(error)}") from None

    def decode(self, ids: list[int]) -> str:
        """Return the text of an answer, without special tokens and without white space around it."""
        return self.tidy(self.raw(ids))

    def raw(self, ids: list[int]) -> str:
        """Return the text of an answer, without special tokens, with the white space around it."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def stream(self, stop: Sequence[str] = ()) -> "TextStream":
        """Return the text of a new answer, to which tokens are added one by one until it has a `stop` string."""
        return TextStream(self, self._tokenizer, self._special, stop)

    def tidy(self, text: str, *, whole: bool = True) -> str:
        """Return decoded text as it is shown; if it is not the whole text, the part that no later token can change."""
        if not self._tidies:
            return text.strip()
        for spaced, tidy in _TIDIED:
            text = text.replace(spaced, tidy)
        return text.strip() if whole else text.rpartition(" ")[0].strip()


@final
class TextStream:
    """An answer whose tokens come one by one: its `tokens` so far, and what is `shown` of its text.

    `stopped`: the text has a stop string; it ends before the first one.
    """

    def __init__(self, text: Text, tokenizer: Tokenizer, special: Set[int], stop: Sequence[str] = ()) -> None:
        self.tokens: list[int] = []
        self.shown = ""
        self.stopped = False
        self._text, self._tokenizer, self._special, self._stop = text, tokenizer, special, stop
        self._decoder: DecodeStream | None = DecodeStream()
        self._waiting: list[int] = []
        self._decoded = ""

    @property
    def text(self) -> str:
        """The whole text, after its end."""
        return self._text.tidy(self._decoded)

    def add(self, token: int) -> str:
        """Take the next token; return the text that is settled now: no later token can change it."""
        self.tokens.append(token)
        if token not in self._special:
            self._waiting.append(token)
            self._decode()
            if self._stop and self._ends():
                return self.end()
        return self._show(self._text.tidy(self._decoded[: self._settled()], whole=False))

    def end(self) -> str:
        """Return the rest of the text, after the last token."""
        if not self.stopped:
            self._decoded = self._text.raw(self.tokens)
        return self._show(self.text)

    def _decode(self) -> None:
        """Decode the waiting tokens, but never part of a run of bytes: an invalid one changes those before it."""
        if self._decoder is None or _BYTE.fullmatch(self._tokenizer.id_to_token(self._waiting[-1]) or ""):
            return
        try:
            self._decoded += self._decoder.step(self._tokenizer, self._waiting) or ""
        except Exception:  # a decoder that changed text it had given; tokenizers raises plain Exception
            self._decoder = None
        self._waiting = []

    def _ends(self) -> bool:
        """Cut the text before its first stop string, if it has one; bytes that wait for more of their kind count too."""
        decoded = self._text.raw(self.tokens) if self._waiting or self._decoder is None else self._decoded
        places = [place for place in map(decoded.find, self._stop) if place >= 0]
        if places:
            self._decoded, self.stopped = decoded[: min(places)], True
        return self.stopped

    def _settled(self) -> int:
        """Return how much of the text is no beginning of a stop string."""
        held = (size for one in self._stop for size in range(1, len(one)) if self._decoded.endswith(one[:size]))
        return len(self._decoded) - max(held, default=0)

    def _show(self, text: str) -> str:
        new = text[len(self.shown) :]
        self.shown += new
        return new


def _read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise InputError(f"{path} is missing: the runtime needs a model with a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        check_template(tokenizer)
    except Exception as error:  # the tokenizers package raises plain Exception
        raise InputError(f"{path} cannot be read: {one_line(error)}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_template(tokenizer: Tokenizer) -> None:
    """Check that the tokens which a tokenizer's template puts around a text are defined: else it panics, in Rust.

    Raises:
        ValueError: one is not.
    """
    if tokenizer.post_processor is None:
        return
    waiting = [json.loads(tokenizer.post_processor.__getstate__())]
    while waiting:
        found = waiting.pop()
        waiting += found.get("processors", [])
        pieces = [*found.get("single", []), *found.get("pair", [])] if found["type"] == "TemplateProcessing" else []
        for token in (piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece):
            if token not in found["special_tokens"]:
                raise ValueError(f"its template uses the token {token}, which it does not define")


def check_added(path: Path) -> None:
    """Check what the added tokens of a tokenizer.json say of themselves: tokenizers prints a key that it does not know, raw.

    Raises:
        OSError, ValueError: it cannot be read, or a key is no name.
    """
    text = path.read_text(encoding="utf-8")
    begins = _ADDED.search(text)
    tokens = json.JSONDecoder().raw_decode(text, begins.end() - 1)[0] if begins else []
    for key in (key for token in tokens if isinstance(token, dict) for key in token):
        if not key.isidentifier():
            raise ValueError(f"an added token has the key {shortened(repr(key), 60)}, which is no name")


def _tidies(path: Path, tokenizer: Tokenizer) -> bool:
    """Whether spaces before punctuation are removed; transformers never does so for BPE, whatever the file says."""
    if not path.is_file():
        return False
    try:
        asked = bool(read_json(path).get("clean_up_tokenization_spaces"))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}; copy the file again") from None
    return asked and type(tokenizer.model).__name__ != "BPE"
