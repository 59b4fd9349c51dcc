"""Adapters on a model: putting them on its Linear layers, taking them off, and switching them off.

Shapes: O out features, I in features, P bytes that hold the bits of I.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.repair.methods import Adapted, AdapterSpec


class Adapters:
    """The adapters on one model, by the names of the layers that they sit on."""

    def __init__(self, model: nn.Module, originals: Mapping[str, nn.Linear], layers: Mapping[str, Adapted]) -> None:
        self.model, self.originals, self.layers = model, dict(originals), dict(layers)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters as `<layer>.<part>`, such as `<layer>.lora_A`, in the order of the layers."""
        return {f"{name}.{part}": one for name, layer in self.layers.items() for part, one in layer.trained().items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch all adapters off, those of the interface included."""
        before = {name: layer.enabled for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                layer.enabled = False
            yield
        finally:
            for name, layer in self.layers.items():
                layer.enabled = before[name]

    def detach(self) -> None:
        """Put the Linears back; the trained adapters stay in `layers`."""
        for name, linear in self.originals.items():
            self.model.set_submodule(name, linear)


def attach(model: nn.Module, specs: Mapping[str, AdapterSpec], seed: int = 0) -> Adapters:
    """Freeze the whole model and put an adapter on every Linear that is named.

    Raises:
        InputError: a name is not that of a Linear of this model, or a mask does not fit its weight.
    """
    linears = {name: find_linear(model, name, spec.mask) for name, spec in specs.items()}
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    layers = {name: spec.kind(linears[name], spec, generator) for name, spec in specs.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return Adapters(model, linears, layers)


def find_linear(model: nn.Module, name: str, mask: Tensor | None) -> nn.Linear:
    """Return the Linear of that name, which an adapter is for.

    Raises:
        InputError: there is none, or the mask, boolean (O, I) or packed (O, P), does not fit its weight.
    """
    try:
        found = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"the adapter is for a layer {name}, which this model lacks") from None
    if not isinstance(found, nn.Linear):
        raise InputError(f"the adapter is for {name}, which is not a Linear in this model but a {type(found).__name__}")
    rows, columns = found.weight.shape
    if mask is not None and mask.shape != (rows, columns if mask.dtype == torch.bool else -(-columns // 8)):
        raise InputError(f"the mask of {name} is {tuple(mask.shape)}, its weight {(rows, columns)}")
    return found
