"""A module computes with the weights of its graph, inside `as_stored` alone."""

from pathlib import Path

import pytest
import torch

from tests.artifacts import dense, pruned, share_operators
from tests.exporters.material import small
from tests.runtime.kernels.material import needs_library
from vlmc.exporters.base import Activations, Options
from vlmc.exporters.onnx.as_stored import as_stored
from vlmc.exporters.onnx.exporter import export
from vlmc.exporters.onnx.parity import largest_error
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.kernels.packing import ValueType
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

pytestmark = [pytest.mark.integration, needs_library]


@pytest.mark.parametrize(
    ("kind", "activations"), [("bf16", "fp32"), ("bf16", "bf16"), ("fp16", "fp32"), ("int8", "fp32"), ("int8", "int8")]
)
def test_rounding_is_no_error_of_the_graph(kind: ValueType, activations: Activations, tmp_path: Path) -> None:
    spec = small()
    before = spec.module(*spec.inputs.values())
    report = export(spec, tmp_path / "small.onnx", Options(cpu_sparse=kind, cpu_activations=activations))
    assert report.max_error is not None
    assert report.rounding_error is not None
    assert report.max_error < 1e-6 < 1e-4 < report.rounding_error
    assert torch.equal(spec.module(*spec.inputs.values()), before), "the module was left changed"


def test_graph_of_other_weights_fails_all_the_same(tmp_path: Path) -> None:
    spec, options = small(), Options(cpu_sparse="int8")
    export(spec, tmp_path / "small.onnx", options)
    with torch.no_grad():
        spec.module.get_submodule("rows").get_parameter("bias").add_(3)
    with pytest.raises(CheckFailed, match=r"small\.onnx differs from torch by .* of the scale of y, above the tolerance"):
        largest_error(spec, tmp_path / "small.onnx", options)


def test_the_module_is_as_before_after_an_error(tmp_path: Path) -> None:
    spec = small()
    export(spec, tmp_path / "small.onnx", Options(cpu_sparse="int8"))
    before = spec.module(*spec.inputs.values())
    with pytest.raises(KeyError), as_stored(spec, tmp_path / "small.onnx"):
        assert not torch.equal(spec.module(*spec.inputs.values()), before)
        raise KeyError
    assert torch.equal(spec.module(*spec.inputs.values()), before)


@pytest.mark.parametrize("family", ["blip-2", "gemma3"])
def test_layers_of_their_own_kind_and_bare_parameters_are_rounded_too(family: str, tmp_path: Path) -> None:
    """OPT's table of positions is asked by masks, Gemma's scales its rows; Gemma 3's projector holds a bare parameter."""
    share_operators()
    made = pruned(dense(family, tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(cpu_sparse="int8", cpu_activations="int8"), "onnx", Progress(quiet=True)).run(made)
    assert all(graph["max_error"] < 1e-5 for graph in report["graphs"])
    assert max(graph["rounding_error"] for graph in report["graphs"]) > 1e-3
