"""Graph descriptions: the modules of a wiring, with real inputs from the family's own processor.

Shapes: B batch, S new tokens, P past tokens, T = P + S, D hidden size, N image features, X tiles or patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.deployment import Deployment, Tiles
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing import Batch
from vlmc.toolchain.deploy.causal import Cache, Decoder
from vlmc.toolchain.deploy.wiring import Wiring

LONGEST = 4096
"""The most tokens that engines are built for, if the model takes more."""

ANSWER = 32
"""Tokens of an answer, added to the prompt's for the length that engines are tuned for."""

ROWS = {0: Axis("batch", 1, 1, 8)}


@dataclass(frozen=True)
class Sources:
    """What graph descriptions are made from; `batches` are probes from the runtime's processing.

    The first batch is one question about one image, the second has several rows of different lengths.
    """

    model: nn.Module
    wiring: Wiring
    deployment: Deployment
    batches: Sequence[Batch]

    @property
    def embedding(self) -> nn.Embedding:
        """The language model's token embedding."""
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        return table

    @property
    def limit(self) -> int:
        """The most tokens that engines are built for."""
        return min(self.deployment.max_positions or LONGEST, LONGEST)

    @property
    def optimum(self) -> int:
        """The length to tune for: a question about an image, and its answer. Sparse kernels gain only with many rows."""
        prompt: int = self.batches[0].ids_BS.shape[1]
        return min(self.limit, prompt + ANSWER)


def describe_graphs(sources: Sources) -> list[GraphSpec]:
    """Return the graphs to export, in the order in which they run."""
    return [_vision(sources), _embedding(sources), _decoder(sources)]


def _vision(sources: Sources) -> GraphSpec:
    """Describe the image encoder: inputs (X, ...) -> image_features, projection included."""
    module, wanted = sources.wiring.vision.eval(), list(signature(sources.wiring.vision.forward).parameters)
    cases = [_tensors(batch.vision, wanted) for batch in sources.batches]
    tiles = isinstance(sources.wiring.layout, Tiles)
    usual, most = (max(len(case[wanted[0]]) for case in some) for some in (cases[:1], cases))
    axis = Axis("images" if tiles else "patches", 1 if tiles else 4, usual, max(8, 4 * most))
    example = max(cases, key=lambda case: len(case[wanted[0]]))
    return GraphSpec(
        name=sources.deployment.graphs.vision,
        module=module,
        inputs=example,
        outputs=("image_features",),
        axes={name: {0: axis} for name in wanted},
        cases=[case for case in cases if case is not example],
    )


def _embedding(sources: Sources) -> GraphSpec:
    """Describe input_ids (B, S) -> inputs_embeds (B, S, D)."""
    one, several = (torch.from_numpy(batch.ids_BS) for batch in sources.batches[:2])
    return GraphSpec(
        name=sources.deployment.graphs.embedding,
        module=sources.embedding.eval(),
        inputs={"input_ids": several},
        outputs=("inputs_embeds",),
        axes={"input_ids": ROWS | {1: Axis("sequence", 1, sources.optimum, sources.limit)}},
        cases=[{"input_ids": one}, {"input_ids": one[:, :1]}],
    )


def _decoder(sources: Sources) -> GraphSpec:
    """Describe the decoder; see `Decoder.forward` for the shapes. Its cases have caches that the model itself made."""
    config: Any = sources.model.config
    cache = Cache.of(config.get_text_config(decoder=True))
    module = Decoder(sources.wiring.language, sources.wiring.head).eval()
    past = [f"past_key_values.{name}" for name in cache.names]
    inputs = [
        dict(zip(("inputs_embeds", "attention_mask", "position_ids", *past), case, strict=True))
        for case in _decoder_cases(sources, module, cache)
    ]
    sequence = Axis("sequence", 1, sources.optimum, sources.limit)
    batch = 1 if sources.deployment.positions == "m-rope" else 0
    return GraphSpec(
        name=sources.deployment.graphs.decoder,
        module=module,
        inputs=inputs[0],
        outputs=("logits", *(f"present.{name}" for name in cache.names)),
        axes={
            "inputs_embeds": ROWS | {1: sequence},
            "attention_mask": ROWS | {1: Axis("total", 1, sources.optimum, 2 * sources.limit)},
            "position_ids": {batch: ROWS[0], batch + 1: sequence},
        }
        | {name: ROWS | {2: Axis("past", 0, 0, sources.limit)} for name in past},
        cases=inputs[1:],
    )


@torch.no_grad()
def _decoder_cases(sources: Sources, module: Decoder, cache: Cache) -> list[list[Tensor]]:
    """Return inputs as in generation: prompts, the token after them, several tokens at once, padded rows.

    No row begins with a masked token: torch and ONNX Runtime need not agree on a row that attends to nothing.
    """

    def prompt(batch: Batch) -> list[Tensor]:
        mask, positions = torch.from_numpy(batch.mask_BS), torch.from_numpy(batch.positions)
        return [_embed(sources, batch), mask, positions, *cache.empty(len(mask))]

    def after(case: list[Tensor], new: int) -> list[Tensor]:
        embeds, mask, positions = case[:3]
        longer = torch.cat([mask, mask.new_ones(len(mask), new)], 1)
        last = (positions * mask).amax((0, 2) if positions.ndim == 3 else 1)
        following = last[:, None] + 1 + torch.arange(new)
        following = following.expand(3, -1, -1) if positions.ndim == 3 else following
        return [embeds[:, :new].contiguous(), longer, following.contiguous(), *module(*case)[1:]]

    one, several = (prompt(batch) for batch in sources.batches[:2])
    return [after(several, 3), one, after(one, 1), several, after(several, 1)]


def _embed(sources: Sources, batch: Batch) -> Tensor:
    """Return the embeddings (B, S, D) of a batch's tokens, with the images' features in place of theirs."""
    wanted = list(signature(sources.wiring.vision.forward).parameters)
    ids_BS = torch.from_numpy(batch.ids_BS)
    embeds_BSD: Tensor = sources.embedding(ids_BS).detach()
    features = sources.wiring.vision.eval()(**_tensors(batch.vision, wanted))
    is_image = (ids_BS == sources.deployment.image_token_id) & torch.from_numpy(batch.mask_BS).bool()
    embeds_BSD[is_image] = features.reshape(-1, features.shape[-1])
    return embeds_BSD


def _tensors(arrays: Mapping[str, np.ndarray[Any, Any]], wanted: Sequence[str]) -> dict[str, Tensor]:
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(f"the model's processor returns no {missing[0]}, which its vision encoder needs")
    return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in wanted}
