"""Everyone who runs a whole decoder: a prompt, then token after token, in turns."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from products.contestants import INTEGER, OPENVINO, OPENVINO_BF16, ROUNDED, WHOLE, missing
from products.measuring import Clock

from decoders.graphs import BF16_ACTIVATIONS, INT8_ACTIVATIONS, Product, in_bits, packed, plain, whole, write
from decoders.inputs import embeddings
from decoders.llama import LLAMA, LlamaCpp
from decoders.llama import absent as absent_llama
from decoders.peers import OpenVino
from decoders.running import Runner
from decoders.shapes import Decoder
from vlmc.runtime.kernels.native import WithoutSubnormals, require_library
from vlmc.toolchain.bench.operators import beside

PROMPT, ANSWER = 600, 64
SLOWEST = 30.0
"""Seconds of a prompt above which a contestant is not measured again."""
ORT, PACKED, INT8, INT4 = "ONNX Runtime fp32", "2:4 bf16", "ONNX Runtime MatMulNBits 8", "ONNX Runtime MatMulNBits 4"
PACKED_BF16, PACKED_INT8, WHOLE_INT8, TORCH = ROUNDED, "2:4 int8", WHOLE, "torch bf16"
OPENVINO_INT8 = "OpenVINO int8, weights alone"
LLAMA_BF16, LLAMA_INT8, LLAMA_INT4 = LLAMA
DENSE_16, DENSE_8 = (TORCH, OPENVINO_BF16, LLAMA_BF16), (INT8, INTEGER, OPENVINO_INT8, LLAMA_INT8)
"""Who has dense weights in 16 and in 8 bits."""
PEERS = {OPENVINO: "fp32", OPENVINO_BF16: "bf16", OPENVINO_INT8: "int8"}
SPARE = (TORCH, *PEERS, *LLAMA, PACKED_BF16, INTEGER, INT4)
"""Who may be left out."""
PREFILL, DECODE = "prefill of 600 tokens", "decoding of 64 tokens, each"


class Graph(Runner):
    """A graph in ONNX Runtime; its cache has room for prompt and answer, and is written in place."""

    def __init__(self, decoder: Decoder, path: Path, threads: int, nbytes: int, times: Path | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if times is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(times)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.register_custom_ops_library(str(require_library()))
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._decoder, self._value, self.nbytes = decoder, onnxruntime.OrtValue.ortvalue_from_numpy, nbytes
        self._ends = [
            node.name.removeprefix("past.") for node in self._session.get_inputs() if node.name.startswith("past.")
        ]

    def prefill(self, tokens: int) -> None:
        shape = (1, self._decoder.shared_heads, tokens + ANSWER, self._decoder.head_size)
        self._cache, self._length = [self._value(np.zeros(shape, np.float32)) for _ in range(2 * self._decoder.layers)], 0
        self._run(tokens)

    def step(self) -> None:
        self._run(1)

    def end(self) -> str:
        """Return the file of the operators' times."""
        return str(self._session.end_profiling())

    def _run(self, tokens: int) -> None:
        binding = self._session.io_binding()
        self._length += tokens
        for name, array in embeddings(self._decoder, tokens, self._length).items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits", "cpu")
        for name, value in zip(self._ends, self._cache, strict=True):
            binding.bind_ortvalue_input(f"past.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        with WithoutSubnormals():
            self._session.run_with_iobinding(binding)
        self.logits = binding.get_outputs()[0].numpy()


class Torch(Runner):
    """transformers' Llama in torch, bf16."""

    def __init__(self, decoder: Decoder) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            hidden_size=decoder.hidden,
            intermediate_size=decoder.inner,
            num_hidden_layers=decoder.layers,
            num_attention_heads=decoder.heads,
            num_key_value_heads=decoder.shared_heads,
            head_dim=decoder.head_size,
            vocab_size=decoder.vocabulary,
            tie_word_embeddings=True,
        )
        self._model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
        self.nbytes = 2 * sum(weight.numel() for weight in self._model.parameters())

    def prefill(self, tokens: int) -> None:
        self._cache: Any = None
        self._run(tokens)

    def step(self) -> None:
        self._run(1)

    def _run(self, tokens: int) -> None:
        import torch

        from vlmc.toolchain.deploy.causal import cache_keyword

        keyword = cache_keyword(self._model)
        with torch.inference_mode():
            ids, cache = torch.ones(1, tokens, dtype=torch.long), {keyword: self._cache}
            found = self._model(ids, use_cache=True, logits_to_keep=1, **cache)
        self._cache = getattr(found, keyword)


def runners(decoder: Decoder, folder: Path, threads: int, without: Collection[str] = ()) -> dict[str, Runner]:
    """Return everyone but those left out, ready to run; graphs are written into the folder."""
    products: dict[str, Product] = {ORT: plain, INT8: in_bits(8), INTEGER: whole, INT4: in_bits(4)}
    products |= {PACKED: packed("bf16"), PACKED_INT8: packed("int8")}
    products |= {PACKED_BF16: packed("bf16", BF16_ACTIVATIONS), WHOLE_INT8: packed("int8", INT8_ACTIVATIONS)}
    found: dict[str, Runner] = {}
    for number, (name, product) in enumerate(products.items()):
        path = folder / f"{number}.onnx"
        if name not in without:
            found[name] = Graph(decoder, path, threads, write(decoder, product, path))
    absent = {*absent_peers(), *without}
    peers = {name: kind for name, kind in PEERS.items() if name not in absent}
    found |= {name: OpenVino(decoder, folder / "0.onnx", threads, kind) for name, kind in peers.items()}
    for name, kind in LLAMA.items():
        if name not in absent:
            found[name] = LlamaCpp(decoder, folder / f"{kind}.gguf", threads, kind, ANSWER)
    return found | ({} if TORCH in without else {TORCH: Torch(decoder)})


def absent_peers() -> dict[str, str]:
    """Return who of others' runtimes is not measured here, and why."""
    found = missing()
    if OPENVINO in found:
        return dict.fromkeys(PEERS, found[OPENVINO]) | absent_llama()
    return {name: why for name, why in found.items() if name in PEERS} | absent_llama()


def times(found: dict[str, Runner], rounds: int, now: Clock) -> dict[str, dict[str, list[float]]]:
    """Return seconds by contestant and phase, in turns after a round that does not count: who is slow drops out."""
    taken: dict[str, dict[str, list[float]]] = {name: {PREFILL: [], DECODE: []} for name in found}
    for index in range(rounds + 1):
        for name, runner in list(found.items()):
            prefill, decode = _once(runner, now)
            if index:
                taken[name][PREFILL].append(prefill)
                taken[name][DECODE].append(decode)
            elif prefill > SLOWEST:
                del found[name]
    return taken


def rest_of_token(decoder: Decoder, path: Path, threads: int) -> float:
    """Return the seconds of a token after the prompt that its graph does not spend in products with weights."""
    graph = Graph(decoder, path, threads, 0, path.with_suffix(".times"))
    graph.prefill(PROMPT)
    for _ in range(ANSWER // 4):
        graph.step()
    return beside(json.loads(Path(graph.end()).read_text(encoding="utf-8")))


def _once(runner: Runner, now: Clock) -> tuple[float, float]:
    began = now()
    runner.prefill(PROMPT)
    between = now()
    for _ in range(ANSWER):
        runner.step()
    return between - began, (now() - between) / ANSWER
