"""The three graphs that every vision-language model is deployed as, and the modules that are traced for them.

Shapes: B batch, C channels, H height, W width, S new tokens, P past tokens, T = P + S, D hidden size, V vocabulary,
N image tokens, K key-value heads, E head size.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.artifact import Serving


@dataclass(frozen=True)
class Cache:
    """The size of a language model's key-value cache."""

    layers: int
    heads: int
    head_size: int

    @classmethod
    def of(cls, config: Any) -> "Cache":
        """Read it from a language model's configuration in transformers."""
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size)

    def empty(self, batch: int) -> list[Tensor]:
        """Return a cache of no tokens: keys and values (B, K, 0, E) of every layer."""
        return [torch.zeros(batch, self.heads, 0, self.head_size) for _ in range(2 * self.layers)]


class Decoder(nn.Module):
    """A language model with its cache as plain tensors: one graph for the prompt and for every token after it."""

    def __init__(self, language_model: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.language_model = language_model
        self.head = head
        self.cache_keyword = cache_keyword(language_model)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Embeddings (B, S, D), mask (B, T), positions (B, S), cache (B, K, P, E) -> logits (B, S, V) and cache."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index in range(0, len(past), 2):
            cache.update(past[index], past[index + 1], index // 2)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
            **{self.cache_keyword: cache},
        )
        logits = output.logits if self.head is None else self.head(output.last_hidden_state)
        return (logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values)))


def cache_keyword(language_model: nn.Module) -> str:
    """Return the keyword by which a model takes its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(language_model.forward).parameters else "past_key_values"


def vision_graph(module: nn.Module, serving: Serving, side: int) -> GraphSpec:
    """Describe pixel_values (B, C, H, W) -> image_features (B, N, D), projection included."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randn(batch, 3, side, side, generator=generator) for batch in (2, 1, 3)]
    return GraphSpec(
        name="vision_encoder",
        module=module.eval(),
        inputs={"pixel_values": pixels[0]},
        outputs=("image_features",),
        axes={"pixel_values": {0: Axis("batch", 1, 1, 8)}},
        cases=[{"pixel_values": case} for case in pixels[1:]],
    )


def embedding_graph(module: nn.Embedding, serving: Serving) -> GraphSpec:
    """Describe input_ids (B, S) -> inputs_embeds (B, S, D)."""
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(module.num_embeddings, size, generator=generator) for size in ((2, 5), (1, 1), (3, 17))]
    return GraphSpec(
        name="embed_tokens",
        module=module.eval(),
        inputs={"input_ids": ids[0]},
        outputs=("inputs_embeds",),
        axes={"input_ids": {0: Axis("batch", 1, 1, 8), 1: _sequence(serving)}},
        cases=[{"input_ids": case} for case in ids[1:]],
    )


def decoder_graph(module: Decoder, embedding: nn.Embedding, cache: Cache, serving: Serving) -> GraphSpec:
    """Describe the decoder; see `Decoder.forward` for the shapes. Its cases carry caches that the model itself made."""
    module.eval()
    names = [f"{index}.{kind}" for index in range(cache.layers) for kind in ("key", "value")]
    past = [f"past_key_values.{name}" for name in names]
    rows = {0: Axis("batch", 1, 1, 8)}
    sequence = rows | {1: _sequence(serving)}
    limit = serving.max_positions
    total = Axis("total", 1, _optimum(serving), 2 * limit)
    inputs = [
        dict(zip(("inputs_embeds", "attention_mask", "position_ids", *past), case, strict=True))
        for case in _decoder_cases(module, embedding, cache)
    ]
    return GraphSpec(
        name="decoder_model_merged",
        module=module,
        inputs=inputs[0],
        outputs=("logits", *(f"present.{name}" for name in names)),
        axes={"inputs_embeds": sequence, "attention_mask": rows | {1: total}, "position_ids": sequence}
        | {name: rows | {2: Axis("past", 0, 0, limit)} for name in past},
        cases=inputs[1:],
    )


def reached(spec: GraphSpec, model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Map Linear layers by their names inside the graph's module to their names in the model, out of `layers`.

    A layer whose weight no output depends on is left out: LLaVA reads its vision tower before the last block.
    """
    names = {id(model.get_submodule(name)): name for name in layers}
    inside = {name: module for name, module in spec.module.named_modules() if id(module) in names}
    weights = {name: cast(nn.Parameter, module.weight) for name, module in inside.items()}
    used = _used(spec, weights.values())
    return {name: names[id(module)] for name, module in inside.items() if id(weights[name]) in used}


def _used(spec: GraphSpec, weights: Iterable[nn.Parameter]) -> set[int]:
    """Return the ids of the weights that the outputs for the example depend on, found in the graph of autograd."""
    asked = {weight: weight.requires_grad for weight in weights}
    for weight in asked:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = spec.module(*spec.inputs.values())
    finally:
        for weight, before in asked.items():
            weight.requires_grad_(before)
    outputs = output if isinstance(output, tuple) else (output,)
    waiting: list[Any] = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen, used = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::AccumulateGrad":
            used.add(id(node.variable))
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return used


def _decoder_cases(module: Decoder, embedding: nn.Embedding, cache: Cache) -> list[list[Tensor]]:
    """Return inputs as they come while answering: a prompt, one token after it, several at once, tokens masked out.

    The first token is never masked: torch and ONNX Runtime need not agree on a row that sees nothing.
    """
    generator = torch.Generator().manual_seed(2)

    def case(batch: int, new: int, past: list[Tensor], masked: int = 0) -> list[Tensor]:
        ids = torch.randint(embedding.num_embeddings, (batch, new), generator=generator)
        total = past[0].shape[2] + new
        mask = torch.ones(batch, total, dtype=torch.long)
        mask[0, 1 : 1 + masked] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, total - new :]
        with torch.no_grad():
            return [embedding(ids).detach(), mask, positions, *past]

    def after(inputs: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*inputs)[1:])

    prompt, pair, holed = (
        case(1, 7, cache.empty(1)),
        case(2, 5, cache.empty(2)),
        case(3, 6, cache.empty(3), masked=2),
    )
    return [
        case(2, 3, after(pair)),
        prompt,
        case(1, 1, after(prompt)),
        holed,
        case(3, 1, after(holed), masked=2),
    ]


def _optimum(serving: Serving) -> int:
    """The length to tune for: a picture and a question. Sparse kernels win only where rows are many."""
    return min(serving.max_positions, serving.image_tokens + 32)


def _sequence(serving: Serving) -> Axis:
    return Axis("sequence", 1, _optimum(serving), serving.max_positions)
