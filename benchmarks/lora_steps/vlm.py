"""A whole LLaVA with random weights: all Linears of vision and language are pruned and adapted, the interface adapted.

Shapes: B samples, T tokens of a sample, N tokens of its answer, V words of the vocabulary, C H W a picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_steps.contestants import by_autograd
from lora_steps.subject import Pairs, Subject, prune
from vlmc.toolchain.families.llava import Llava
from vlmc.toolchain.repair.loading import recompute

NAME, FAMILY = "vlm", Llava()
WORDS, PATCH, HEAD = 4096, 14, 64
PICTURE = WORDS - 1  # the word that stands for a piece of the picture


@dataclass(frozen=True)
class Size:
    """How large the model and its batch are; `tokens` are a sample's, those of its picture and answer included."""

    batch: int
    tokens: int
    answer: int
    side: int  # of a picture, in pixels
    hidden: int
    inner: int
    blocks: int
    vision_hidden: int
    vision_inner: int
    vision_blocks: int

    @property
    def picture(self) -> int:
        """Tokens of a picture."""
        return (self.side // PATCH) ** 2

    def __str__(self) -> str:
        return (
            f"a LLaVA of {self.blocks} language blocks {self.hidden:,} wide (MLP {self.inner:,}) and {self.vision_blocks} "
            f"vision blocks {self.vision_hidden:,} wide (MLP {self.vision_inner:,}), with {self.batch} samples of "
            f"{self.tokens:,} tokens, of which {self.picture:,} are a picture's and {self.answer:,} the answer's"
        )


class VLM(Subject):
    """LLaVA as transformers has it; a step is the cross entropy of the answers' tokens, forward and backward."""

    def __init__(self, size: Size) -> None:
        self.size, model = size, random_llava(size)
        masks = prune({name: cast(nn.Linear, model.get_submodule(name)) for name in FAMILY.prunable(model)})
        draw = torch.Generator().manual_seed(0)
        self.tokens_BT = torch.randint(PICTURE, (size.batch, size.tokens), generator=draw)
        self.tokens_BT[:, : size.picture] = PICTURE
        self.pixels_BCHW = torch.randn(size.batch, 3, size.side, size.side, generator=draw)
        super().__init__(NAME, model, masks, [self.tokens_BT, self.pixels_BCHW], FAMILY.adaptable(model))

    def step(self, model: nn.Module, *, checkpointed: bool = False) -> None:
        with checkpointing(model) if checkpointed else nullcontext():
            self._loss(model).backward()  # type: ignore[no-untyped-call]

    def truth(self, pairs: Pairs) -> Pairs:
        """Return autograd's gradients in float64; what transformers rounds to float32 inside is rounded here too."""
        exact = {name: (a_RI.double(), b_OR.double()) for name, (a_RI, b_OR) in pairs.items()}
        one = by_autograd(self, deepcopy(self.model).double(), exact)
        self.step(one.model)
        return one.gradients()

    def _loss(self, model: nn.Module) -> Tensor:
        kept = self.size.answer + 1  # columns whose logits are computed; the last one predicts nothing
        some = cast(Any, model)
        output = some(input_ids=self.tokens_BT, pixel_values=self.pixels_BCHW, use_cache=False, logits_to_keep=kept)
        return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), self.tokens_BT[:, 1 - kept :].flatten())


@contextmanager
def checkpointing(model: nn.Module) -> Iterator[None]:
    """Let autograd keep the inputs of each block alone, and compute the block again in the backward pass."""
    blocks = dict(block for tower in FAMILY.towers for block in FAMILY.blocks(model, tower))
    recompute(model, blocks)
    try:
        yield
    finally:
        for block in blocks.values():
            del block.forward


def random_llava(size: Size) -> nn.Module:
    """Return the model with the weights that transformers draws."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = _stack(size.vision_hidden, size.vision_inner, size.vision_blocks)
    text = _stack(size.hidden, size.inner, size.blocks)
    config = LlavaConfig(
        vision_config=vision | {"model_type": "clip_vision_model", "image_size": size.side, "patch_size": PATCH},
        text_config=text | {"model_type": "llama", "vocab_size": WORDS, "max_position_embeddings": size.tokens},
        image_token_id=PICTURE,
        image_seq_length=size.picture,
        vision_feature_layer=-1,  # LLaVA 1.5's -2 would leave the last vision block without a gradient
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = LlavaForConditionalGeneration(config)
    return model.requires_grad_(False).eval()


def _stack(hidden: int, inner: int, blocks: int) -> dict[str, Any]:
    heads = {"num_attention_heads": hidden // HEAD}
    return {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": blocks, **heads}
