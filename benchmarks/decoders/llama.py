"""llama.cpp running the decoder from a GGUF file, in bf16, Q8_0 or Q4_0, with its own default settings.

Its cache is in fp16.
"""

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from decoders.graphs import EPSILON, LONGEST
from decoders.inputs import embeddings
from decoders.running import Runner
from decoders.shapes import Decoder, own_OI, weight_OI
from vlmc.runtime.kernels.packing import Array

LLAMA = {f"llama.cpp {kind}": kind for kind in ("BF16", "Q8_0", "Q4_0")}
"""The types of GGUF, by the contestants' names."""
NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"} | {n: f"ffn_{n}" for n in ("gate", "up", "down")}


def absent() -> dict[str, str]:
    """Return why llama.cpp is not measured here, by contestant; nothing where it is."""
    needed = [name for name in ("llama_cpp", "gguf") if not find_spec(name)]
    return dict.fromkeys(LLAMA, f"{needed[0]} is not installed") if needed else {}


class LlamaCpp(Runner):
    """The library of llama-cpp-python."""

    def __init__(self, decoder: Decoder, path: Path, threads: int, kind: str, answer: int) -> None:
        self.nbytes, self._answer = write(decoder, path, kind), answer
        self._library = llama_cpp = _library()
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        settings: Any = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = LONGEST
        settings.n_threads = settings.n_threads_batch = threads
        self._context: Any = llama_cpp.llama_init_from_model(self._model, settings)
        assert self._context, "llama.cpp does not take the file"
        self._decoder, self._length = decoder, 0
        self._batch: Any = llama_cpp.llama_batch_init(LONGEST, decoder.hidden, 1)
        for index in range(LONGEST):
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, 0

    def prefill(self, tokens: int) -> None:
        assert tokens + self._answer <= LONGEST
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        self._length = 0
        self._run(tokens)

    def step(self) -> None:
        self._run(1)

    def _run(self, count: int) -> None:
        x, batch = embeddings(self._decoder, count, self._length + count)["inputs_embeds"], self._batch
        ctypes.memmove(batch.embd, x.ctypes.data, x.nbytes)
        batch.n_tokens = count
        for index in range(count):
            batch.pos[index], batch.logits[index] = self._length + index, index == count - 1
        self._length += count
        failed = self._library.llama_decode(self._context, batch)
        assert not failed, f"llama.cpp: {failed}"
        found = self._library.llama_get_logits_ith(self._context, -1)
        self.logits = np.ctypeslib.as_array(found, (1, 1, self._decoder.vocabulary))


@cache
def _library() -> Any:
    """Return llama_cpp, silent."""
    import llama_cpp

    library: Any = llama_cpp
    library.silent = library.llama_log_callback(lambda *_: None)  # has to live as long as the library
    library.llama_log_set(library.silent, None)
    return library


def write(decoder: Decoder, path: Path, kind: str) -> int:
    """Write a decoder as GGUF, every product's weight in that type; return these weights' bytes."""
    import gguf
    from gguf.quants import quantize

    writer, stored = gguf.GGUFWriter(path, "llama"), gguf.GGMLQuantizationType[kind]
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(decoder.hidden)
    writer.add_block_count(decoder.layers)
    writer.add_feed_forward_length(decoder.inner)
    writer.add_head_count(decoder.heads)
    writer.add_head_count_kv(decoder.shared_heads)
    writer.add_key_length(decoder.head_size)
    writer.add_value_length(decoder.head_size)
    writer.add_rope_dimension_count(decoder.head_size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(decoder.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    weights = {
        name: quantize(_ordered(decoder, name, weight_OI(name, outputs, inputs)), stored)
        for name, outputs, inputs in decoder.products()
    }
    columns = {name: inputs for name, _, inputs in decoder.products()}

    def of_layer(name: str, layer: int) -> Array:
        own = quantize(_ordered(decoder, name, own_OI(decoder, name, columns[name], layer)), stored)
        return np.concatenate([own, weights[name][len(own) :]])

    nbytes = 0
    for name, weight in _tensors(decoder, weights["head"], of_layer):
        writer.add_tensor(name, weight, raw_dtype=stored)
        nbytes += weight.nbytes
    ones = np.ones(decoder.hidden, np.float32)
    norms = [f"blk.{layer}.{norm}.weight" for layer in range(decoder.layers) for norm in ("attn_norm", "ffn_norm")]
    for name in (*norms, "output_norm.weight"):
        writer.add_tensor(name, ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return nbytes


def _ordered(decoder: Decoder, name: str, weight_OI: Array) -> Array:
    """Return a weight, the rows of q and k in the order of a rotation of neighbours instead of halves."""
    if name not in "qk":
        return weight_OI
    inputs = weight_OI.shape[1]
    return weight_OI.reshape(-1, 2, decoder.head_size // 2, inputs).swapaxes(1, 2).reshape(-1, inputs)


def _tensors(decoder: Decoder, head: Array, of_layer: Callable[[str, int], Array]) -> Iterator[tuple[str, Array]]:
    """Yield every product's weight by its name in GGUF; the head is the table of embeddings."""
    for layer in range(decoder.layers):
        yield from ((f"blk.{layer}.{name}.weight", of_layer(ours, layer)) for ours, name in NAMES.items())
    yield "token_embd.weight", head
