"""The three graphs of a model for onnxruntime-genai, with real inputs from the family's own processor."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.deployment import Patches
from vlmc.toolchain.deploy import causal_graphs
from vlmc.toolchain.deploy.causal import BlockDecoder
from vlmc.toolchain.deploy.genai.modules import GridTower, MergedEmbedding, TokenBlockDecoder
from vlmc.toolchain.deploy.graphs import describe_vision
from vlmc.toolchain.deploy.sources import ROWS, Sources

VISION, EMBEDDING, DECODER = "vision", "embedding", "model"
"""The graphs' files, as onnxruntime-genai's own tools call them."""
_BLOCKS = "block_sequence_ids"


def describe_graphs(sources: Sources) -> list[GraphSpec]:
    """Return the graphs to export, in the order in which they run; the cache of `sources` is concatenated."""
    return [_vision(sources), _embedding(sources), _decoder(sources)]


def _vision(sources: Sources) -> GraphSpec:
    """Describe pixels, with patches their images' sizes too -> image_features."""
    spec = dataclasses.replace(describe_vision(sources), name=VISION)
    layout = sources.wiring.layout
    if not isinstance(layout, Patches):
        return spec
    pixels = next(iter(spec.inputs))
    return dataclasses.replace(
        spec,
        module=GridTower(spec.module, layout).eval(),
        inputs=_sized(spec.inputs, pixels),
        axes={pixels: spec.axes[pixels], "image_grid_thw": {0: Axis("images", 1, 1, 8)}},
        cases=[_sized(case, pixels) for case in spec.cases],
    )


def _sized(case: Mapping[str, Tensor], pixels: str) -> dict[str, Tensor]:
    """Return the inputs with the size of each image in place of what follows from it."""
    places, images = case["patch_places"], case["patch_images"]
    sizes = [places[images == number].amax(0) + 1 for number in range(int(images.max()) + 1)]
    grids = torch.stack([torch.cat([torch.ones(1, dtype=torch.long), size]) for size in sizes])
    return {pixels: case[pixels], "image_grid_thw": grids}


def _embedding(sources: Sources) -> GraphSpec:
    """Describe input_ids (B, S) and image_features, those of patches (F, D), else (images, tokens, D) -> inputs_embeds."""
    one, several = sources.batches[:2]
    token, width = sources.deployment.image_token_id, sources.embedding.weight.shape[1]
    flat = isinstance(sources.wiring.layout, Patches)
    draw = torch.Generator().manual_seed(0)

    def case(ids_BS: Tensor, images: int) -> dict[str, Tensor]:
        shown = int((ids_BS == token).sum())
        shape = (shown, width) if flat else (images, shown // images, width)
        return {"input_ids": ids_BS, "image_features": torch.randn(shape, generator=draw)}

    prompts = [case(torch.from_numpy(batch.ids_BS), len(batch.vision["pixel_values"])) for batch in (several, one)]
    features, images = Axis("features", 0, sources.optimum, 8 * sources.limit), Axis("images", 1, 1, 8)
    return GraphSpec(
        name=EMBEDDING,
        module=MergedEmbedding(sources.embedding, token).eval(),
        inputs=prompts[0],
        outputs=("inputs_embeds",),
        axes={
            "input_ids": ROWS | {1: sources.sequence},
            "image_features": {0: features} if flat else {0: images, 1: features},
        },
        cases=[prompts[1], case(torch.full((1, 1), sources.deployment.stop_ids[0]), 1)],
    )


def _decoder(sources: Sources) -> GraphSpec:
    [spec] = causal_graphs.describe(sources)
    spec = dataclasses.replace(spec, name=DECODER)
    if _BLOCKS not in spec.inputs:
        return spec
    token = sources.deployment.image_token_id
    module = TokenBlockDecoder(cast(BlockDecoder, spec.module), token)
    return dataclasses.replace(
        spec,
        module=module.eval(),
        inputs=_with_tokens(spec.inputs, token),
        axes={_renamed(name): axes for name, axes in spec.axes.items()},
        cases=[_with_tokens(case, token) for case in spec.cases],
    )


def _with_tokens(case: Mapping[str, Tensor], token: int) -> dict[str, Tensor]:
    """Return the inputs with tokens in place of their blocks."""
    return {_renamed(n): torch.where(t >= 0, token, 0) if n == _BLOCKS else t for n, t in case.items()}


def _renamed(name: str) -> str:
    return "input_ids" if name == _BLOCKS else name
