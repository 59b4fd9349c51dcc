"""From samples to the tensors that a model is trained, calibrated or asked with.

Shapes: B samples, T tokens, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.runtime.artifact import Serving
from vlmc.runtime.errors import InputError
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families.base import Processor

IGNORE = -100  # torch's cross entropy leaves these labels out


@dataclass(frozen=True)
class Encoder:
    """Turns samples into token ids exactly as the model's own processor does, answers included."""

    processor: Processor
    serving: Serving

    def question(self, sample: Sample) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (1, T) and `pixel_values` (1, C, H, W) of the question alone."""
        text = fill_prompt(self.serving, sample.question)
        if self.serving.image_position == "front":
            text = text.replace(self.serving.image_slot, "", 1)
        encoded = self.processor(images=sample.load_image(), text=text, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask", "pixel_values")}

    def answered(self, sample: Sample) -> dict[str, Tensor]:
        """Return the question's tensors with the answer and the end of sequence appended, and `labels` (1, T).

        Labels are `IGNORE` everywhere but on the answer and its end.
        """
        asked = self.question(sample)
        answer = self.processor.tokenizer(" " + sample.answer, add_special_tokens=False)["input_ids"]
        if not answer:
            raise InputError(f"sample {sample.id} has an answer without any token: {sample.answer!r}")
        tail = torch.tensor([[*answer, self.serving.eos_token_ids[0]]])
        return {
            "input_ids": torch.cat([asked["input_ids"], tail], 1),
            "attention_mask": torch.cat([asked["attention_mask"], torch.ones_like(tail)], 1),
            "pixel_values": asked["pixel_values"],
            "labels": torch.cat([torch.full_like(asked["input_ids"], IGNORE), tail], 1),
        }


def collate(encoded: Sequence[dict[str, Tensor]], pad_token_id: int) -> dict[str, Tensor]:
    """Stack encoded samples into one batch, padded on the right; padding is masked and carries no label."""
    fills = {"input_ids": pad_token_id, "attention_mask": 0, "labels": IGNORE}
    longest = max(item["input_ids"].shape[1] for item in encoded)

    def stack(name: str) -> Tensor:
        if name not in fills:
            return torch.cat([item[name] for item in encoded])
        rows = [item[name] for item in encoded]
        padded = [torch.nn.functional.pad(row, (0, longest - row.shape[1]), value=fills[name]) for row in rows]
        return torch.cat(padded)

    return {name: stack(name) for name in encoded[0]}
