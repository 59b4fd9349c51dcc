"""Text to tokens and back, from `tokenizer.json` alone: what transformers' tokenizer does, without transformers."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from vlmc.runtime.artifact import Serving
from vlmc.runtime.errors import InputError

_UNFINISHED = "\ufffd"  # what a part of a character decodes to
_TIDIED = ((" ' ", "'"), *((f" {mark}", mark) for mark in ("n't", "'m", "'s", "'ve", "'re")))
_TIDIED = (*((f" {mark}", mark) for mark in ".?!,"), *_TIDIED)


class Text:
    """A model's tokenizer.

    Raises:
        InputError: `tokenizer.json` is missing or unreadable, or knows the picture's token under another number.
    """

    def __init__(self, folder: Path, serving: Serving) -> None:
        self._serving = serving
        self._tokenizer = _read(folder / "tokenizer.json")
        self._tidies = _tidies(folder / "tokenizer_config.json", self._tokenizer)
        known = self._tokenizer.token_to_id(serving.image_slot)
        if serving.image_position == "inline" and known != serving.image_token_id:
            raise InputError(
                f"{folder / 'tokenizer.json'} has {serving.image_slot} as token {known}, "
                f"the manifest says {serving.image_token_id}: make the artifact anew"
            )

    def encode(self, text: str) -> list[int]:
        """Return the ids of a whole input text, special tokens included, the picture's tokens in the slot's place."""
        serving = self._serving
        if serving.image_position == "front":
            ids = list(self._tokenizer.encode(text.replace(serving.image_slot, "", 1)).ids)
            return [serving.image_token_id] * serving.image_tokens + ids
        return list(self._tokenizer.encode(text.replace(serving.image_slot, serving.image_slot * serving.image_tokens)).ids)

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
