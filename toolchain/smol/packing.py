"""Rows of tokens for training `smol`: an image and several questions, as its processor encodes each alone."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from torch import Tensor

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.smol.architecture import TOKENS
from vlmc.toolchain.smol.language import AROUND, END, GLOBAL, IMAGE, PAD
from vlmc.toolchain.smol.looks import pixels
from vlmc.toolchain.smol.packed import Packed, Row, pack
from vlmc.toolchain.smol.questions import KINDS, ask
from vlmc.toolchain.smol.scenes import Scene

_BEFORE = f"<|im_start|>user\n{AROUND}{GLOBAL}{IMAGE * TOKENS}{AROUND}"
_AFTER = f"{END}\n<|im_start|>assistant\n"


class Packer:
    """Makes rows of questions; `tokenizer` is SmolLM2's."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.prefix = tuple(self._tokens(_BEFORE))
        self._end, self._pad = self._tokens(END)[0], self._tokens(PAD)[0]

    def row(self, asked: Sequence[tuple[str, str]]) -> Row:
        """Return a row of questions and answers about one image."""
        row = Row(self.prefix)
        for question, answer in asked:
            row.append(*self._texts(question, answer))
        return row

    def fill(self, scene: Scene, tokens: int, emphasis: Mapping[str, float], random: Random) -> Row:
        """Return a row of training questions about a scene, of at most so many tokens; `emphasis` weighs the kinds."""
        row, weights = Row(self.prefix), [emphasis.get(kind, 1.0) for kind in KINDS]
        while True:
            asked = ask(random.choices(KINDS, weights)[0], scene, random, "train")
            if asked is None:
                continue
            prompt, target = self._texts(*asked)
            if len(row.ids) + len(prompt) + len(target) > tokens:
                return row
            row.append(prompt, target)

    def pack(self, rows: Sequence[Row]) -> Packed:
        """Return rows as tensors."""
        return pack(rows, self._pad)

    def singles(self, samples: Sequence[Sample]) -> tuple[Packed, Tensor]:
        """Return samples as rows of one question each, and their images."""
        packed = self.pack([self.row([(sample.question, sample.answer)]) for sample in samples])
        return packed, pixels([np.asarray(sample.load_image()) for sample in samples])

    def _texts(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        return self._tokens(f"\n{question}{_AFTER}"), [*self._tokens(answer), self._end]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
