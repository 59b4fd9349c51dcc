"""From a described model to a contestant: graphs in ONNX Runtime, or its modules in torch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.model import Model
from vlmc.runtime.sessions import Array, OnnxSession, Session
from vlmc.toolchain.bench.narrowing import narrow
from vlmc.toolchain.bench.timing import Contestant, Opened, Timed
from vlmc.toolchain.deploy.deployed import Deployed
from vlmc.toolchain.machine.progress import Task

ENGINES = ("onnx", "torch")


def in_onnx(root: Path, deployed: Deployed, folder: Path, options: Options, threads: int) -> Contestant:
    """Export the graphs, checked as any others; `root` holds the tokenizer and the processor."""
    folder.mkdir()
    exporters.find("onnx").export(deployed.specs, folder, options, Task())
    (folder / DEPLOYMENT).write_text(deployed.deployment.to_json(), encoding="utf-8")
    return _from_graphs(root, deployed, folder, threads)


def in_bits(root: Path, deployed: Deployed, graphs: Path, folder: Path, bits: int, threads: int) -> Contestant:
    """Take a contestant's graphs with their products in ONNX Runtime's own few bits."""
    narrow(graphs, folder, bits)
    return _from_graphs(root, deployed, folder, threads)


def _from_graphs(root: Path, deployed: Deployed, folder: Path, threads: int) -> Contestant:
    nbytes = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
    graphs = [spec.name for spec in deployed.specs]
    opens = {name: partial(OnnxSession, folder / f"{name}.onnx", threads=threads) for name in graphs}
    return _contestant(root, deployed.deployment, opens, nbytes)


def in_torch(root: Path, deployed: Deployed, device: torch.device) -> Contestant:
    """Take the modules as they are: dense products, in float32 on a CPU and float16 on a GPU."""
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    weights = {id(tensor): tensor for spec in deployed.specs for tensor in spec.module.parameters()}
    size = torch.empty((), dtype=dtype).element_size()
    nbytes = sum(tensor.numel() for tensor in weights.values()) * size
    opens = {spec.name: partial(TorchSession, spec, device, dtype) for spec in deployed.specs}
    return _contestant(root, deployed.deployment, opens, nbytes)


class TorchSession(Session):
    """A graph's module, run by torch."""

    def __init__(self, spec: GraphSpec, device: torch.device, dtype: torch.dtype) -> None:
        self._spec, self._device, self._dtype = spec, device, dtype
        self._module = spec.module.to(device, dtype).eval()

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return {name: (tensor.numpy().dtype, self._shape(name)) for name, tensor in self._spec.inputs.items()}

    def _shape(self, name: str) -> tuple[int | str, ...]:
        axes = self._spec.axes.get(name, {})
        return tuple(axes[axis].name if axis in axes else size for axis, size in enumerate(self._spec.inputs[name].shape))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(np.ascontiguousarray(feeds[name])).to(self._device) for name in self._spec.inputs]
        with torch.inference_mode():
            answer = self._module(*(one.to(self._dtype) if one.is_floating_point() else one for one in given))
        answers = answer if isinstance(answer, tuple) else (answer,)
        return {name: one.float().cpu().numpy() for name, one in zip(self._spec.outputs, answers, strict=True)}

    def close(self) -> None:
        """Nothing is held that Python does not free."""


def _contestant(root: Path, deployment: Deployment, opens: Mapping[str, Callable[[], Session]], nbytes: int) -> Contestant:
    """Return what opens all graphs, each in its way; it holds no model in torch but those that torch runs."""
    graphs = deployment.graphs

    def opened() -> Opened:
        timed = {name: Timed(open_graph()) for name, open_graph in opens.items()}
        model = Model.from_sessions(root, deployment, timed, vision_bytes=0)  # every answer looks at its image anew
        return Opened(model, timed[graphs.vision], timed[graphs.embedding], timed[graphs.decoder])

    return Contestant(opened, nbytes)
