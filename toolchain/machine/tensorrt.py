"""doctor --tensorrt: build two 2:4 layers with the TensorRT that is installed, and say what it chose for them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.tensorrt.binding import bind
from vlmc.exporters.tensorrt.report import tables
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.machine.progress import Task
from vlmc.toolchain.reporting.tables import show_table

WIDTH, ROWS = 1024, 1024
"""Features of both layers and rows of the profile's OPT: large enough for sparse tactics to win on a GPU that has them."""
_TWO_FOUR = SparsityPattern.parse("2:4")


def try_tensorrt() -> dict[str, Any]:
    """Build in fp16 for the first GPU that this TensorRT builds for; return the build report.

    Raises:
        EnvironmentLacks: no TensorRT is installed, or it needs a GPU and finds none.
        CheckFailed: it cannot build the two layers.
    """
    exporter = exporters.find("tensorrt")
    gpu = bind().targets([])[0]
    with TemporaryDirectory(prefix="vlmc-tensorrt-") as scratch:
        return exporter.export([_two_layers()], Path(scratch), Options("fp16", (gpu,)), Task())


def show_trial(report: dict[str, Any]) -> None:
    """Print what was built with what, and each layer's verdict."""
    [engine] = report["engines"]
    print(f"{report['package']} {report['version']} built two 2:4 layers for {engine['gpu']}: {engine['bytes']} bytes")
    for table in tables(report):
        print()
        show_table(table.header, table.rows)
        for note in table.notes:
            print(note)
    sparse = [layer for layer in engine["layers"] if layer["chosen"]]
    if engine["log_chosen"] is not None:
        print(f"{len(sparse)} of {len(engine['layers'])} layers run sparse here")


def _two_layers() -> GraphSpec:
    draw = torch.Generator().manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()
    for layer in layers:
        weight = torch.randn(WIDTH, WIDTH, generator=draw) / WIDTH**0.5
        layer.weight.data = torch.where(_TWO_FOUR.mask(weight.abs()), weight, 0.0)
        layer.bias.data.zero_()
    inputs = {"x": torch.randn(2, WIDTH, generator=draw)}
    axes = {"x": {0: Axis("rows", 1, ROWS, 2 * ROWS)}}
    return GraphSpec("two_layers", module, inputs, ("y",), axes, sparse={"0": _TWO_FOUR, "2": _TWO_FOUR})
