"""Whether a model fits into memory: one that does is loaded, any other is streamed from its files."""

import math

import torch
from torch import nn

from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.machine.memory import free_memory, keep_large_apart
from vlmc.toolchain.models.saved import SavedModel

COPIES = 3
"""How often the weights are in memory in float32 where a model is loaded: the model's, those of ONNX Runtime, and those of
which it makes these."""


def fits(source: SavedModel) -> bool:
    """Whether a model and the graphs that are made of it fit into the memory that is free now."""
    return COPIES * _float32_bytes(source) <= free_memory()


def open_model(source: SavedModel) -> nn.Module:
    """Return a model that computes in float32 on the CPU; the weights of one that does not fit are read whenever it runs."""
    if fits(source):
        return source.load()
    keep_large_apart()
    streamed = source.stream(torch.device("cpu"))
    streamed.hold_loose()
    return streamed.module


def _float32_bytes(source: SavedModel) -> int:
    files = open_weights(source.folder)
    return sum(4 * math.prod(file.shape(name)) for name, file in files.items())
