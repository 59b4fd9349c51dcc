"""The decoder's products, and whether their speed on this machine is predicted, to stand beside what is measured."""

from collections.abc import Sequence

from torch import nn

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.deploy.deployed import Deployed
from vlmc.toolchain.deploy.reached import reached
from vlmc.toolchain.families.base import linears

CACHE = 128 << 20
"""Bytes of float32 weights that a cache may hold: below them decoding does not wait for memory, which is predicted."""
TOO_SMALL = f"nothing is predicted: below {CACHE >> 20} MB of fp32 a cache may hold the decoder's weights"
_TWO_FOUR = SparsityPattern.parse("2:4")
Product = tuple[int, int, bool]
"""Outputs, inputs, and whether the weight is promised as 2:4."""


def products(deployed: Deployed, model: nn.Module) -> list[Product]:
    """Return the decoder's products with weights."""
    decoder = next(spec for spec in deployed.specs if spec.name == deployed.deployment.graphs.decoder)
    names = reached(decoder, model, [name for name, _ in linears(model)])
    weights = {inside: decoder.module.get_parameter(f"{inside}.weight") for inside in names}
    return [(*weight.shape, decoder.sparse.get(inside) == _TWO_FOUR) for inside, weight in weights.items()]


def is_predicted(found: Sequence[Product]) -> bool:
    """Say whether no cache holds the weights of these products."""
    return sum(4 * outputs * inputs for outputs, inputs, _ in found) >= CACHE
