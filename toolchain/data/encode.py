"""From samples to the tensors that a model is trained, calibrated or asked with.

Shapes: B samples, T tokens of the question and, but for encoder-decoder models, of its answer, L tokens of the answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families.base import Family, Processor

IGNORE = -100  # torch's cross entropy leaves these labels out

Encoded = dict[str, Tensor]
"""All that a model's processor makes of a sample, by the names of the model's arguments."""

_IDS = ("input_ids", "qformer_input_ids")


class Encoder:
    """Turns samples into tensors exactly as the model's own processor does, answers included.

    `end_ids` are the tokens that end an answer, first the one that answers are given here; `max_positions` is how many
    tokens the language model takes, None where there is no limit.
    """

    def __init__(self, processor: Processor, family: Family, model: nn.Module) -> None:
        self.processor, self.family = processor, family
        self.end_ids = family.end_ids(model, processor)
        self.max_positions = family.max_positions(model)
        self.pad_id = int(processor.tokenizer.pad_token_id or 0)

    def prompt(self, sample: Sample) -> str:
        """Return the text that the processor is given: the question in the model's own template, its images in their places.

        Raises:
            InputError: there is no question, or the model cannot be asked so; the message names the sample.
        """
        try:
            return self.family.prompt(self.processor, len(sample.images), sample.question, sample.system)
        except InputError as error:
            raise InputError(f"sample {sample.id}: {error}") from None

    def question(self, sample: Sample) -> Encoded:
        """Return everything that the processor makes of the question alone: `input_ids` (1, T), pixels, masks and sizes."""
        text, images = self.prompt(sample), sample.load_images()
        shown: Any = images[0] if len(images) == 1 else images or None
        encoded = self.processor(images=shown, text=text, return_tensors="pt")
        return {name: tensor for name, tensor in encoded.items() if name != "labels"}

    def answered(self, sample: Sample) -> Encoded:
        """Return the question's tensors with the answer and its end, and `labels`: `IGNORE` on all that is not answer.

        The answer follows the question in `input_ids`, and `labels` is (1, T); an encoder-decoder model finds it in
        `labels` (1, L) alone, and its `input_ids` stay the question.

        Raises:
            InputError: the answer has no token.
        """
        asked, tail = self.question(sample), self._tail(sample)
        if self.family.encoder_decoder:
            return {**asked, "labels": tail}
        types = {"token_type_ids": self.family.answer_type, "mm_token_type_ids": 0, "attention_mask": 1}
        longer = {name: torch.cat([asked[name], torch.full_like(tail, types[name])], 1) for name in types if name in asked}
        labels = torch.cat([torch.full_like(asked["input_ids"], IGNORE), tail], 1)
        return {**asked, **longer, "input_ids": torch.cat([asked["input_ids"], tail], 1), "labels": labels}

    def inputs(self, sample: Sample) -> Encoded:
        """Return what a model runs on to calibrate it: question and answer, without the labels that no forward needs."""
        encoded = self.answered(sample)
        return encoded if self.family.encoder_decoder else {n: one for n, one in encoded.items() if n != "labels"}

    def is_short(self, sample: Sample, tokens: int) -> bool:
        """Whether the sample's answer, with its end, has no more tokens than that."""
        return len(self._tokens(sample.answer)) < tokens

    def room(self, encoded: Encoded) -> int | None:
        """Return how many tokens may follow a question; None where there is no limit."""
        if self.max_positions is None or self.family.encoder_decoder:
            return self.max_positions
        return self.max_positions - encoded["input_ids"].shape[1]

    def collate(self, encoded: Sequence[Encoded]) -> Encoded:
        """Stack encoded samples into one batch, as the function `collate` does."""
        return collate(encoded, self.pad_id)

    def _tail(self, sample: Sample) -> Tensor:
        """Return the tokens (1, L) of the answer, as they are after its question, and of its end."""
        prompt, answer = self.prompt(sample), sample.answer.strip()
        joint = self.family.joint(prompt)
        after = (joint or "") + answer
        before, whole = self._tokens(prompt), self._tokens(prompt + after)
        follows = joint is not None and whole[: len(before)] == before
        found = whole[len(before) :] if follows else self._tokens(after)
        if not answer or not found:
            raise InputError(f"sample {sample.id} has an answer without any token: {sample.answer!r}")
        return torch.tensor([[*found, self.end_ids[0]]])

    def _tokens(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def collate(encoded: Sequence[Encoded], pad_token_id: int) -> Encoded:
    """Stack encoded samples into one batch, padded on the right; padding is masked and carries no label.

    Images are stacked too: a sample with fewer tiles, or smaller ones, than another is filled up with zeros, which the
    models know from the sizes or the masks that stand beside the pixels. A sample without an image brings no pixels.
    """
    fills = dict.fromkeys(_IDS, pad_token_id) | {"labels": IGNORE}
    names = dict.fromkeys(name for item in encoded for name in item)
    return {name: _stack([item[name] for item in encoded if name in item], fills.get(name, 0)) for name in names}


def _stack(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Pad every dimension but the first to the longest, and concatenate along the first."""
    longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_grow(tensor, longest, fill) for tensor in tensors])


def _grow(tensor: Tensor, sizes: Sequence[int], fill: int) -> Tensor:
    missing = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
    return pad(tensor, [count for extra in reversed(missing) for count in (0, extra)], value=fill)
