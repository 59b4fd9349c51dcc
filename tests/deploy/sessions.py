"""A graph description that is run by torch: what the runtime makes of it is tested without tracing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.sessions import Array, Session


class TorchSession(Session):
    """The module of a description, with the inputs that its graph would declare."""

    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        found = {}
        for name, tensor in self._spec.inputs.items():
            axes = self._spec.axes.get(name, {})
            shape = tuple(axes[axis].name if axis in axes else size for axis, size in enumerate(tensor.shape))
            found[name] = (tensor.numpy().dtype, shape)
        return found

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(np.ascontiguousarray(feeds[name], kind)) for name, (kind, _) in self.inputs.items()]
        output = self._spec.module(*given)
        outputs = output if isinstance(output, tuple) else (output,)
        return {name: tensor.numpy() for name, tensor in zip(self._spec.outputs, outputs, strict=True)}

    def close(self) -> None:
        pass
