"""Reply: an answer while it is generated, token by token."""

from collections.abc import Sequence
from time import perf_counter
from typing import final

import numpy as np

from vlmc.runtime.answers import Answer, Finish, Timings
from vlmc.runtime.asking import Asked
from vlmc.runtime.sampling import Sampler
from vlmc.runtime.sessions import Array
from vlmc.runtime.text import Text


@final
class Reply:
    """The answer to one question, which began at `began` (of `perf_counter`); `finish` says what ended it, None: not yet."""

    def __init__(self, asked: Asked, text: Text, stop_ids: Sequence[int], began: float) -> None:
        self.finish: Finish | None = None
        self._asked, self._stop_ids, self._began = asked, stop_ids, began
        self._sampler = Sampler(asked.options, asked.batch.ids_BS[0].tolist())
        self._stream = text.stream(asked.options.stop)
        self._first = self._last = began

    @property
    def token(self) -> int:
        """The token that was chosen last."""
        return self._stream.tokens[-1]

    def take(self, logits_V: Array, likeliest: int | None = None) -> str:
        """Choose the next token from its logits (V); return the text that is settled now, the rest after the last token.

        `likeliest` is the token of the greatest logit, where that is known already.
        """
        if likeliest is not None and self._sampler.takes_likeliest:
            token = likeliest
        else:
            token = self._sampler.choose(logits_V.astype(np.float32, copy=False))
        piece = self._stream.add(token)
        self._last = perf_counter()
        if len(self._stream.tokens) == 1:
            self._first = self._last
        self.finish = self._ended(token)
        return piece if self.finish is None else piece + self._stream.end()

    def answer(self) -> Answer:
        """Return the whole answer, after its end."""
        assert self.finish is not None, "the answer is not whole"
        tokens = tuple(self._stream.tokens)
        timings = Timings(self._first - self._began, self._last - self._began, len(tokens))
        return Answer(self._stream.text, tokens, self._asked.length, self.finish, timings)

    def _ended(self, token: int) -> Finish | None:
        if self._stream.stopped or token in self._stop_ids:
            return "stop"
        return "length" if len(self._stream.tokens) >= self._asked.limit else None
