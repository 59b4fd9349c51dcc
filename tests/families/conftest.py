"""A pico model of every family, loaded once for all tests of its module."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests import pico
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models.saved import SavedModel

ANSWERS = ("seven", "two red digits", "blue", "yes")
SHAPES = ((32, 32), (40, 70), (64, 36), (32, 32))
"""Widths and heights of images that make unlike numbers of tiles and patches."""


@dataclass(frozen=True)
class Built:
    """A dense pico model in float32."""

    name: str
    source: SavedModel
    model: nn.Module
    encoder: Encoder


@pytest.fixture(scope="session", params=list(pico.FAMILIES))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = pico.save(request.param, tmp_path_factory.mktemp("families") / request.param, torch.float32)
    source = SavedModel.find(str(folder))
    model = source.load()
    return Built(request.param, source, model, Encoder(source.load_processor(), source.family, model))


def samples(count: int = 4) -> list[Sample]:
    """Return questions about images of different shapes, with answers of different lengths."""
    return [
        Sample(f"s{i}", (pico.picture(i, *SHAPES[i]),), pico.QUESTIONS[i % len(pico.QUESTIONS)], ANSWERS[i], "kind")
        for i in range(count)
    ]
