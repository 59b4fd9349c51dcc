"""Pico models: every family in a few thousand weights, built from configs in code; for tests of the whole chain.

Matrix dimensions are multiples of 16. Weights are random with a fixed seed, and wide enough for answers to differ from
picture to picture. Each follows its family in what is awkward there; its file says in what.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from tests.pico import (
    blip2,
    gemma3,
    idefics3,
    instructblip,
    internvl,
    llava,
    llava_next,
    paligemma,
    qwen2_5_vl,
    qwen3_vl,
)
from tests.pico.base import IDS, INNER, SIDE, WIDTH, Pico, cut, draw_weights, picture

__all__ = ["DEPLOYABLE", "FAMILIES", "INNER", "QUESTIONS", "SIDE", "USUAL", "WIDTH", "picture", "save"]

QUESTIONS = ("what is the largest digit ?", "how many red digits are there ?", "which colour is the digit in the top left ?")

FAMILIES: dict[str, Pico] = {
    "llava": llava.PICO,
    "llava_next": llava_next.PICO,
    "blip-2": blip2.PICO,
    "blip-2-t5": blip2.PICO_T5,
    "instructblip": instructblip.PICO,
    "instructblip-t5": instructblip.PICO_T5,
    "qwen2_5_vl": qwen2_5_vl.PICO,
    "qwen3_vl": qwen3_vl.PICO,
    "idefics3": idefics3.PICO,
    "smolvlm": idefics3.PICO_SMOL,
    "paligemma": paligemma.PICO,
    "internvl": internvl.PICO,
    "gemma3": gemma3.PICO,
}
"""Pico models by the family's name."""

VARIANTS: dict[str, Pico] = {"paligemma2": paligemma.PICO_2}
"""Models of these families whose language model is of another one."""

DEPLOYABLE = (*FAMILIES, *VARIANTS)
"""What is exported and run; the tests of that take all of them."""

USUAL = ("llava", "blip-2")
"""Two of them that are quick and unlike each other; the tests of pruning, repairing and merging take these."""


def save(
    family: str,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    depths: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Write the family's pico model and processor into `folder` as transformers does; return the folder.

    `depths` are numbers of blocks by the parts of the configuration, where there shall be fewer of them. Where transformers
    cannot make the processor, the test is skipped.
    """
    pico = (FAMILIES | VARIANTS)[family]
    try:
        processor = pico.processor()
    except ImportError as error:  # transformers 5.17 has no image processor for Idefics3 that does without torchvision
        pytest.skip(str(error).strip().splitlines()[0])
    torch.manual_seed(seed)
    model: Any = pico.model()
    draw_weights(model)
    model = cut(model, depths) if depths else model
    ends = IDS | {"eos_token_id": list(pico.ends) if len(pico.ends) > 1 else pico.ends[0]}
    model.generation_config = GenerationConfig(**ends, max_new_tokens=8, do_sample=False)
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
