"""Weights that are not 2:4, and tables of embeddings, in the type of the packed ones."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.exporters.material import small
from tests.runtime.kernels.material import needs_library
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import GraphSpec
from vlmc.exporters.onnx import packed
from vlmc.exporters.onnx import tables as narrow
from vlmc.exporters.onnx.exporter import export
from vlmc.exporters.onnx.report import tables
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.sessions import OnnxSession
from vlmc.runtime.sessions import onnx as onnx_sessions

pytestmark = needs_library
SMALLER: tuple[ValueType, ...] = ("bf16", "fp16", "int8")


class Asked(nn.Module):
    """A table of embeddings, and a head that stays dense; its second layer has sizes that do not fit the kernels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.odd = nn.Embedding(90, 36), nn.Linear(36, 90), nn.Linear(90, 5)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.odd(self.head(self.table(ids)))
        return found


def asked() -> GraphSpec:
    ids = torch.arange(12).reshape(3, 4)
    cases = [{"ids": torch.tensor([[89, 0, 7, 8]])}]
    axes = small().axes["x"]
    return small(name="asked", module=Asked().eval(), inputs={"ids": ids}, cases=cases, sparse={}, axes={"ids": axes})


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALLER)
def test_head_and_table_are_stored_in_the_same_type(kind: ValueType, tmp_path: Path) -> None:
    path = tmp_path / "asked.onnx"
    report = export(asked(), path, Options(cpu_sparse=kind))
    assert (report.packed, report.dense) == (0, 2)
    assert 0 < report.max_error <= report.tolerance
    model = onnx.load(path)
    onnx.checker.check_model(model)
    operations = [node.op_type for node in model.graph.node]
    assert (operations.count("MatMulDense"), operations.count("MatMul") + operations.count("Gemm")) == (1, 1)
    large = {tensor.data_type for tensor in model.graph.initializer if len(tensor.raw_data) >= 36 * 90}
    assert large == {getattr(onnx.TensorProto, {"bf16": "BFLOAT16", "fp16": "FLOAT16", "int8": "INT8"}[kind])}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALLER)
def test_any_runtime_computes_the_same(kind: ValueType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ids = tmp_path / "asked.onnx", {"ids": np.array([[3, 89, 0, 1]])}
    export(asked(), path, Options(cpu_sparse=kind))
    with OnnxSession(path) as session:
        ours = session.run(ids)["y"]
    monkeypatch.setattr(onnx_sessions, "library", lambda: None)
    with pytest.warns(UserWarning, match=r"runs without its 2:4 kernels"):
        stock = OnnxSession(path)
    np.testing.assert_allclose(stock.run(ids)["y"], ours, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_full_precision_stays_as_it_is(tmp_path: Path) -> None:
    report = export(asked(), tmp_path / "asked.onnx", Options(cpu_sparse="fp32"))
    assert (report.packed, report.dense) == (0, 0)


@pytest.mark.integration
@pytest.mark.parametrize("kind", SMALLER)
@pytest.mark.parametrize(("module", "packs", "told"), [(narrow, "_tensors", "table"), (packed, "_packed", "head")])
def test_another_weight_than_the_models_is_told(
    module: Any, packs: str, told: str, kind: ValueType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch computes with the graph's own weights, so these are held against the model's one by one."""
    right = getattr(module, packs)

    def wrong(*given: Any, **more: Any) -> Any:
        return right(*(one[::-1].copy() if isinstance(one, np.ndarray) else one for one in given), **more)

    monkeypatch.setattr(module, packs, wrong)
    with pytest.raises(CheckFailed, match=rf"asked\.onnx: the stored {told}\.weight is not the model's, rounded to {kind}"):
        export(asked(), tmp_path / "asked.onnx", Options(cpu_sparse=kind))


def test_table_of_the_report_counts_both() -> None:
    graph = {"graph": "asked", "precision": "fp32", "cpu_sparse": "int8", "packed": 2, "dense": 1, "bytes": 10**6}
    graph |= {
        "packed_bytes": 9,
        "bf16_bytes": 16,
        "max_error": 0.01,
        "rounding_error": 0.004,
        "tolerance": 0.1,
        "note": None,
        "layers": [],
        "stored": None,
    }
    [found] = tables({"graphs": [graph, graph | {"packed": 0, "dense": 0}]})
    assert [row[1] for row in found.rows] == ["fp32, 2 layers 2:4 int8, 1 weights dense int8", "fp32"]
    assert found.notes == [
        "rounding changes torch's own outputs by up to 4.0e-03 of their largest value",
        "the 2:4 weights take 0.00 MB, 0.562 of what they would dense in bf16",
    ]
