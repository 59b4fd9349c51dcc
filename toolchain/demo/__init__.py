"""The demo: scenes of handwritten digits, questions about them, and two small models trained on both."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmc.toolchain.builtin.base import BuiltIn, NamedData, NamedModel

if TYPE_CHECKING:
    from vlmc.toolchain.data.sample import Sample


def _locate(name: str) -> Path:
    from vlmc.toolchain.demo.shipped import locate

    return locate(name)


def _samples(split: Any, count: int | None) -> "Sequence[Sample]":
    from vlmc.toolchain.demo.dataset import samples

    return samples(split, count)


SOURCE = BuiltIn(
    models=(
        NamedModel("demo", "a small LLaVA", "demo", partial(_locate, "demo")),
        NamedModel("demo-blip2", "a small BLIP-2", "demo", partial(_locate, "demo-blip2")),
    ),
    data=(NamedData("demo", "the demo's questions", _samples),),
)
