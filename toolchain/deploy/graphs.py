"""Graph descriptions: the modules of a wiring, with real inputs from the family's own processor.

Shapes: B batch, S new tokens, D hidden size, X tiles or patches.
"""

from collections.abc import Mapping, Sequence
from inspect import signature

from torch import Tensor

from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.runtime.deployment import Patches
from vlmc.toolchain.deploy import causal_graphs, t5_graphs
from vlmc.toolchain.deploy.sources import ROWS, Sources, image_free, tensors
from vlmc.toolchain.deploy.wiring import Wiring


def describe_graphs(sources: Sources) -> list[GraphSpec]:
    """Return the graphs to export, in the order in which they run."""
    language = t5_graphs if sources.wiring.encoder_decoder else causal_graphs
    return [describe_vision(sources), _embedding(sources), *language.describe(sources)]


def describe_vision(sources: Sources) -> GraphSpec:
    """Describe the image encoder: inputs (X, ...) -> image_features, projection included."""
    wiring = sources.wiring
    module, wanted = wiring.vision.eval(), list(signature(wiring.vision.forward).parameters)
    cases = [tensors(batch.vision, wanted) for batch in sources.batches]
    example = max(cases, key=lambda case: len(case[wanted[0]]))
    return GraphSpec(
        name=sources.deployment.graphs.vision,
        module=module,
        inputs=example,
        outputs=("image_features", "deepstack_features") if wiring.deepstack else ("image_features",),
        axes={name: _leading(wiring, name, cases) for name in wanted},
        cases=[case for case in cases if case is not example],
    )


def _leading(wiring: Wiring, name: str, cases: Sequence[Mapping[str, Tensor]]) -> dict[int, Axis]:
    """Return the dynamic dimensions of a vision input: tuned for the first case, up to four times the largest."""
    patches = isinstance(wiring.layout, Patches)
    names = wiring.axes.get(name, ("patches" if patches else "images",))
    return {
        axis: Axis(
            called,
            4 if patches else 1,
            cases[0][name].shape[axis],
            max(8, 4 * max(case[name].shape[axis] for case in cases)),
        )
        for axis, called in enumerate(names)
    }


def _embedding(sources: Sources) -> GraphSpec:
    """Describe input_ids (B, S) -> inputs_embeds (B, S, D)."""
    one, several = (image_free(sources, batch) for batch in sources.batches[:2])
    return GraphSpec(
        name=sources.deployment.graphs.embedding,
        module=sources.embedding.eval(),
        inputs={"input_ids": several},
        outputs=("inputs_embeds",),
        axes={"input_ids": ROWS | {1: sources.sequence}},
        cases=[{"input_ids": one}, {"input_ids": one[:, :1]}],
    )
