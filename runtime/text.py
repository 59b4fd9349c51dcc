"""Text to tokens and back, from `tokenizer.json` alone: what transformers' tokenizer does, without transformers."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from vlmc.runtime.errors import InputError

_UNFINISHED = "\ufffd"  # what a part of a character decodes to
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

    def number(self, token: str) -> int | None:
        """Return the id of a token, None where the tokenizer has none of that name."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, text: str) -> list[int]:
        """Return the ids of a whole input text, special tokens included."""
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of an answer: without special tokens and without space around it."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        if self._tidies:
            for spaced, tidy in _TIDIED:
                text = text.replace(spaced, tidy)
        return text.strip()

    def settled(self, ids: list[int]) -> str:
        """Return the part of an unfinished answer that no later token can change."""
        text = self.decode(ids)
        if text.endswith(_UNFINISHED):
            text = text.rstrip(_UNFINISHED).rstrip()
        return text.rpartition(" ")[0].rstrip() if self._tidies else text


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
    """Whether spaces before punctuation go; transformers leaves BPE tokenizers alone even where the file asks for it."""
    if not path.is_file():
        return False
    asked = bool(json.loads(path.read_text(encoding="utf-8")).get("clean_up_tokenization_spaces"))
    return asked and type(tokenizer.model).__name__ != "BPE"
