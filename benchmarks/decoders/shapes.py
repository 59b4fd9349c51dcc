"""The decoders' sizes, and their weights. Shapes: O outputs, I inputs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vlmc.runtime.kernels.packing import Array


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder of Llama's kind."""

    name: str
    layers: int
    hidden: int
    heads: int
    shared_heads: int
    head_size: int
    inner: int
    vocabulary: int

    def products(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name, outputs and inputs of a layer's products, and of the head, which stays dense."""
        attention, shared = self.heads * self.head_size, self.shared_heads * self.head_size
        yield from (("q", attention, self.hidden), ("k", shared, self.hidden), ("v", shared, self.hidden))
        yield from (("o", self.hidden, attention), ("gate", self.inner, self.hidden), ("up", self.inner, self.hidden))
        yield from (("down", self.hidden, self.inner), ("head", self.vocabulary, self.hidden))


SHAPES = {
    "135M": Decoder("135 M, SmolLM2", 30, 576, 9, 3, 64, 1536, 49152),
    "0.5B": Decoder("0.5 B, Qwen2.5", 24, 896, 14, 2, 64, 4864, 151936),
    "1.5B": Decoder("1.5 B, Qwen2.5", 28, 1536, 12, 2, 128, 8960, 151936),
}


def weight_OI(name: str, outputs: int, inputs: int, layer: int = 0) -> Array:
    """Return random values that keep the activations' size, 2:4 but for the head."""
    draw = np.random.default_rng([len(name), outputs * inputs, layer])
    weight = draw.standard_normal((outputs * inputs // 4, 4), np.float32) / np.float32(inputs**0.5)
    if name != "head":
        weight[:, draw.permutation(4)[:2]] = 0  # of every group: time does not depend on which
    return weight.reshape(outputs, inputs)


def own_OI(decoder: Decoder, name: str, inputs: int, layer: int) -> Array:
    """Return what a layer has in place of a weight's first outputs, a head's, while the others are the same in every layer.

    ONNX Runtime keeps equal weights once, and then reads them from a cache: layers that are equal are no decoder.
    """
    return weight_OI(name, decoder.head_size, inputs, layer + 1)
