"""The model `smol`: SmolLM2-135M with a small vision encoder, and scenes of emoji and digits to ask about."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmc.toolchain.builtin.base import BuiltIn, NamedData, NamedModel

if TYPE_CHECKING:
    from vlmc.toolchain.data.sample import Sample


def _locate() -> Path:
    from vlmc.toolchain.smol.fetching import locate

    return locate()


def _fetch() -> Path:
    from vlmc.toolchain.smol.fetching import fetch

    return fetch()


def _samples(split: Any, count: int | None) -> "Sequence[Sample]":
    from vlmc.toolchain.smol.dataset import samples

    return samples(split, count)


SOURCE = BuiltIn(
    models=(NamedModel("smol", "an Idefics3 around SmolLM2-135M", "smol", _locate, _fetch),),
    data=(NamedData("smol", "questions about scenes of emoji and digits", _samples),),
)
