"""From samples to a model's input tensors, for training, calibration and evaluation.

Shapes: B samples, T tokens of the question and (except in encoder-decoder models) of its answer, L tokens of the answer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vlmc.runtime.errors import InputError, one_line
from vlmc.runtime.prompts import check_length
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families.base import Family, Processor
from vlmc.toolchain.families.prompting import controls_of

IGNORE = -100  # the label that torch's cross-entropy ignores

Encoded = dict[str, Tensor]
"""The processor's output for a sample, keyed by the names of the model's arguments."""


class TooLong(InputError):
    """A sample has more tokens than the model takes."""


_IDS = ("input_ids", "qformer_input_ids")
_PLAIN = 256  # tokens of plain text that are read, from its start


class Encoder:
    """Encodes samples exactly as the model's own processor does, answers included.

    `end_ids` are the tokens that end an answer; the first one is appended to answers here. `max_positions` is the longest
    input of the language model in tokens, None without a limit.
    """

    def __init__(self, processor: Processor, family: Family, model: nn.Module) -> None:
        self.processor, self.family = processor, family
        self.end_ids = family.end_ids(model, processor)
        self.max_positions = family.max_positions(model)
        self.controls = controls_of(processor, family.image_token(processor))
        self.pad_id = int(processor.tokenizer.pad_token_id or 0)

    def prompt(self, sample: Sample) -> str:
        """Return the text for the processor: the question in the model's own template, with its images in their places.

        Raises:
            InputError: the question is empty, far too long, or does not fit the model; the message names the sample.
        """
        if sample.is_plain:
            raise InputError(f"sample {sample.id} is plain text, which has no question to answer: give questions")
        try:
            check_length(sample.question + sample.system + sample.answer, self.max_positions)
            return self.family.prompt(self.processor, len(sample.images), sample.question, sample.system, self.controls)
        except InputError as error:
            raise InputError(f"sample {sample.id}: {error}") from None

    def question(self, sample: Sample) -> Encoded:
        """Encode the question alone: `input_ids` (1, T), pixels, masks and sizes.

        Raises:
            TooLong: with its images it has more tokens than the model takes, or leaves no room for an answer.
            InputError: an image or the question cannot be read, or does not suit the model.
        """
        text, images = self.prompt(sample), sample.load_images()
        encoded = self._processed(sample, text, images[0] if len(images) == 1 else images or None)
        self._check_length(sample, encoded, 0 if self.family.encoder_decoder else 1)
        return encoded

    def answered(self, sample: Sample) -> Encoded:
        """Encode the question with its answer, and `labels`, which are `IGNORE` outside the answer.

        The answer follows the question in `input_ids`, and `labels` is (1, T). For an encoder-decoder model, `input_ids` is
        the question and `labels` (1, L) the answer.

        Of plain text every token is to be predicted from those before it, up to 256 of them.

        Raises:
            TooLong: together they have more tokens than the model takes.
            InputError: as `question`; or the answer has no tokens, or the model cannot read text without an image.
        """
        if sample.is_plain:
            return self._plain(sample)
        asked, tail = self.question(sample), self._tail(sample)
        if self.family.encoder_decoder:
            return {**asked, "labels": tail}
        types = {"token_type_ids": self.family.answer_type, "mm_token_type_ids": 0, "attention_mask": 1}
        longer = {name: torch.cat([asked[name], torch.full_like(tail, types[name])], 1) for name in types if name in asked}
        labels = torch.cat([torch.full_like(asked["input_ids"], IGNORE), tail], 1)
        encoded = {**asked, **longer, "input_ids": torch.cat([asked["input_ids"], tail], 1), "labels": labels}
        self._check_length(sample, encoded, 0)
        return encoded

    def inputs(self, sample: Sample) -> Encoded:
        """Encode question and answer for a forward pass without a loss: no labels, except for an encoder-decoder model."""
        encoded = self.answered(sample)
        return encoded if self.family.encoder_decoder else {n: one for n, one in encoded.items() if n != "labels"}

    def is_short(self, sample: Sample, tokens: int) -> bool:
        """Whether the sample's answer, with its end token, has at most that many tokens."""
        return len(self._tokens(self.controls.as_text(sample.answer))) < tokens

    def room(self, encoded: Encoded) -> int | None:
        """Return how many tokens may follow a question; None without a limit."""
        if self.max_positions is None or self.family.encoder_decoder:
            return self.max_positions
        return self.max_positions - encoded["input_ids"].shape[1]

    def collate(self, encoded: Sequence[Encoded]) -> Encoded:
        """Stack encoded samples into one batch; see `collate`."""
        return collate(encoded, self.pad_id)

    def _plain(self, sample: Sample) -> Encoded:
        """Encode plain text, without the chat template, as a document is read in pretraining."""
        if self.family.needs_image:
            raise InputError(f"sample {sample.id}: a {self.family.name} model cannot read text without an image")
        encoded = self._processed(sample, self.controls.as_text(sample.answer), None)
        most = _PLAIN if self.max_positions is None else min(_PLAIN, self.max_positions)
        cut = {name: tensor[:, :most] for name, tensor in encoded.items()}
        if cut["input_ids"].shape[1] < 2:
            raise InputError(f"sample {sample.id} has too few tokens to predict one from another: {sample.answer!r}")
        return {**cut, "labels": torch.cat([torch.tensor([[IGNORE]]), cut["input_ids"][:, 1:]], 1)}

    def _check_length(self, sample: Sample, encoded: Encoded, following: int) -> None:
        tokens, most = encoded["input_ids"].shape[1], self.max_positions
        if most is not None and tokens + following > most:
            raise TooLong(
                f"sample {sample.id} has {tokens} tokens, the model takes {most}, an answer too: shorten it or leave it out"
            )

    def _processed(self, sample: Sample, text: str, images: Any) -> Encoded:
        try:
            encoded = self.processor(images=images, text=text, return_tensors="pt")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise InputError(f"sample {sample.id}: the model's processor rejects it: {one_line(error)}") from None
        return {name: tensor for name, tensor in encoded.items() if name != "labels"}

    def _tail(self, sample: Sample) -> Tensor:
        """Return the tokens (1, L) of the answer, tokenised in the context of its question, and the end token."""
        prompt, answer = self.prompt(sample), self.controls.as_text(sample.answer).strip()
        joint = self.family.joint(prompt)
        after = (joint or "") + answer
        before, whole = self._tokens(prompt), self._tokens(prompt + after)
        follows = joint is not None and whole[: len(before)] == before
        found = whole[len(before) :] if follows else self._tokens(after)
        if not answer or not found:
            raise InputError(f"sample {sample.id} has an answer without tokens: {sample.answer!r}")
        return torch.tensor([[*found, self.end_ids[0]]])

    def _tokens(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def collate(encoded: Sequence[Encoded], pad_token_id: int) -> Encoded:
    """Stack encoded samples into one batch, padded on the right; padding is masked and has no labels.

    Images are stacked too: fewer or smaller tiles are padded with zeros, which models skip by the sizes or masks that come
    with the pixels. A sample without an image adds no pixels.
    """
    fills = dict.fromkeys(_IDS, pad_token_id) | {"labels": IGNORE}
    names = dict.fromkeys(name for item in encoded for name in item)
    return {name: _stack([item[name] for item in encoded if name in item], fills.get(name, 0)) for name in names}


def _stack(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Pad every dimension but the first to the largest size, and concatenate along the first."""
    longest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_grow(tensor, longest, fill) for tensor in tensors])


def _grow(tensor: Tensor, sizes: Sequence[int], fill: int) -> Tensor:
    missing = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
    return pad(tensor, [count for extra in reversed(missing) for count in (0, extra)], value=fill)
