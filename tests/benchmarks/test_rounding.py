"""The benchmark of int8: its table, and what it packs."""

from pathlib import Path

import pytest
import rounding
from pages import DOCS, with_table
from report import RESULTS, Report, Row

from tests.artifacts import exported
from tests.runtime.kernels.material import needs_library
from vlmc.exporters.onnx.packed import Packing
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import RoundingSettings


def test_table_has_a_line_for_every_form_of_the_weights() -> None:
    name = rounding.named("gptq", 32)
    rows = [
        Row(rounding.DENSE, None, rounding.ACCURACY, 99.0, "%", None, None),
        Row(name, rounding.DENSE, rounding.ACCURACY, 98.05, "%", 0.9904, None),
        Row(name, rounding.SPARSE, rounding.CHANGED, 3, "", None, None),
        Row(name, "dense bf16", rounding.BYTES, 100, "bytes", 0.375, None),
        Row(name, "rounded to nearest", rounding.ERROR, 1e-5, "", 0.5, None),
    ]
    found = rounding.table(Report("machine", {}, "2026-01-01", "line", rows, [], {"model": "demo", "questions": 2000}))
    assert "| dense fp32 | 99.0 % |  |  |  |  |" in found
    assert f"| {name} | 98.1 % | 99.0 % | 3 | 0.375 | 1e-05 (0.50 of nearest's) |" in found
    assert "`line`" in found


@needs_library
@pytest.mark.integration
def test_graphs_are_packed_as_the_export_does(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = exported("llava", tmp_path_factory.getbasetemp())
    source = SavedModel("artifact", folder)
    how = RoundingSettings(rounding="gptq", group=32, calibration=4)
    quantised = rounding.rounded(source, how, tmp_path)
    packing = Packing("int8", 4, how.group)
    found = rounding.pack(source, source.load(), folder / "onnx", tmp_path / "packed", packing, quantised)
    assert found.report is not None
    assert found.report["mean"]["error"] < found.report["mean"]["nearest"]
    assert 0 < found.packed_bytes < found.bf16_bytes
    layers = [layer for path in (tmp_path / "packed").glob("*.onnx") for layer in check_onnx(path, None) if layer.pattern]
    assert layers
    assert all(layer.violation is None for layer in layers)


@pytest.mark.parametrize("name", rounding.NAMES.values())
def test_page_is_what_the_results_say(name: str) -> None:
    page = (DOCS / "cpu.md").read_text(encoding="utf-8")
    content = rounding.table(Report.read(RESULTS / f"{name}.json"))
    assert with_table(page, name, content) == page, "run python benchmarks/rounding.py"
