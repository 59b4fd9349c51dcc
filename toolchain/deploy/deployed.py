"""A model ready for a backend: its graph descriptions, with the sparsity that they promise, and how they are fed."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime import processing
from vlmc.runtime.artifact import Layer
from vlmc.runtime.deployment import CacheLayout, Deployment
from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.rounding import Rounded
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.deploy.describe import describe
from vlmc.toolchain.deploy.graphs import describe_graphs
from vlmc.toolchain.deploy.probes import pair, probes
from vlmc.toolchain.deploy.reached import reached
from vlmc.toolchain.deploy.sources import Sources
from vlmc.toolchain.families import exported_names
from vlmc.toolchain.models.saved import SavedModel


@dataclass(frozen=True)
class Deployed:
    """Graph descriptions, what the runtime needs to feed them, and the pruned layers that are in no graph.

    `questions` are the probes for the model: about one image, and about two if it takes several.
    """

    deployment: Deployment
    specs: list[GraphSpec]
    unreached: list[str]
    questions: list[Sample]


def deploy(
    saved: SavedModel,
    model: nn.Module,
    layers: Mapping[str, Layer],
    rounded: Mapping[str, Rounded] | None = None,
    cache: CacheLayout = "concatenated",
    graphs: Callable[[Sources], list[GraphSpec]] = describe_graphs,
) -> Deployed:
    """Describe a model's graphs, with example inputs from its own processor for probe images of several shapes.

    `rounded` are weights of its pruned layers in whole numbers, for graphs in int8. A `cache` in place is for a decoder
    alone, and for attention whose scores are not capped (Gemma 2); with other models it stays concatenated. `graphs` says
    which graphs they are.

    Raises:
        InputError: vlmc cannot export such a model, or cannot use its prompt or processor.
    """
    family = saved.family
    wiring = family.wiring(model)
    if wiring is None:
        raise InputError(
            f"vlmc cannot export a {family.name} model yet: it exports {', '.join(exported_names())}; "
            f"transformers loads {saved.folder} as any other model"
        )
    deployment = describe(family, wiring, model, saved.load_processor(), cache)
    process = processing.find(saved.folder, deployment)
    several = deployment.max_images != 1
    questions = [*probes(), *([pair()] if several else [])]
    batches = [process([_request(deployment, sample) for sample in some]) for some in (questions[:1], questions[1:])]
    specs = graphs(Sources(model, wiring, deployment, batches))
    specs, unreached = _with_promises(specs, model, layers, rounded or {})
    return Deployed(deployment, specs, unreached, questions)


def _request(deployment: Deployment, sample: Sample) -> Request:
    images = tuple(sample.load_images())
    return Request(fill_prompt(deployment.prompt, sample.question, images=len(images)), images)


def _with_promises(
    specs: Iterable[GraphSpec], model: nn.Module, layers: Mapping[str, Layer], rounded: Mapping[str, Rounded]
) -> tuple[list[GraphSpec], list[str]]:
    """Add to each graph the patterns of the pruned layers that it runs, and their whole numbers; return who is in none."""
    unreached, promising = set(layers), []
    for spec in specs:
        names = reached(spec, model, layers)
        unreached -= set(names.values())
        promised = {inside: layers[name].sparsity for inside, name in names.items()}
        whole = {inside: rounded[name] for inside, name in names.items() if name in rounded}
        promising.append(dataclasses.replace(spec, sparse=promised, rounded=whole))
    return promising, sorted(unreached)
