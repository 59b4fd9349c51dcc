"""A model that does not fit into memory is exported too: into the same graphs, its weights read whenever they are needed."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from tests import pico
from tests.artifacts import DEPLOYABLE, dense, exported, pruned
from vlmc.runtime import Artifact
from vlmc.toolchain.deploy.agreement import FEW
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models import fitting
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import DENSE_TWIN, LORA_TWIN, Export

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory is free."""
    monkeypatch.setattr(fitting, "free_memory", lambda: 0)


@pytest.mark.parametrize("family", DEPLOYABLE)
def test_the_graphs_are_those_of_a_model_in_memory(
    family: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    held = Artifact.open(exported(family, tmp_path_factory.getbasetemp()))
    request.getfixturevalue("full")
    made = pruned(dense(family, tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(), "onnx", QUIET).run(made)
    assert report["agreement"]["tokens"] == FEW * report["agreement"]["questions"] == 2 * FEW
    for name in (graph["graph"] for graph in report["graphs"]):
        found, expected = (onnx.load(root / "onnx" / f"{name}.onnx") for root in (made.root, held.root))
        assert [node.op_type for node in found.graph.node] == [node.op_type for node in expected.graph.node]
        assert values(found) == values(expected)


def values(model: onnx.ModelProto) -> dict[str, bytes]:
    return {one.name: numpy_helper.to_array(one).tobytes() for one in model.graph.initializer}


@pytest.mark.parametrize(
    ("settings", "twins"),
    [
        (ExportSettings(packed=True), ()),
        (ExportSettings(cpu_sparse="bf16"), ()),
        (ExportSettings(cpu_sparse="int8"), ()),
        (ExportSettings(lora_twin=True, dense_twin=True), (DENSE_TWIN, LORA_TWIN)),
    ],
    ids=["packed", "bf16", "int8", "twins"],
)
def test_what_else_export_writes_is_the_same_too(
    settings: ExportSettings, twins: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = pico.save("llava", tmp_path / "dense")
    made = {where: pruned(base, tmp_path / where) for where in ("held", "streamed")}
    for where in made:
        if where == "streamed":
            request.getfixturevalue("full")
        report = Export(settings, "onnx", QUIET, dense=str(base)).run(made[where])
    assert set(report["twins"]) == set(twins)
    for folder in ("onnx", *(f"onnx/{twin}" for twin in twins)):
        for graph in report["graphs"]:
            found, expected = (
                onnx.load(made[where].root / folder / f"{graph['graph']}.onnx") for where in ("streamed", "held")
            )
            assert [node.op_type for node in found.graph.node] == [node.op_type for node in expected.graph.node]
            assert values(found) == values(expected)


@pytest.mark.parametrize(
    "settings", [ExportSettings(packed=True), ExportSettings(cpu_sparse="bf16")], ids=["packed", "bf16"]
)
def test_one_weight_is_in_memory_at_a_time(
    settings: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No graph is ever read with the values of its weights."""
    made = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")
    request: list[bool] = []
    monkeypatch.setattr(fitting, "free_memory", lambda: 0)
    load = onnx.load

    def watched(path: Path, *rest: Any, load_external_data: bool = True, **more: Any) -> onnx.ModelProto:
        request.append(load_external_data)
        return load(path, *rest, load_external_data=load_external_data, **more)

    monkeypatch.setattr(onnx, "load", watched)
    Export(settings, "onnx", QUIET).run(made)
    assert request
    assert not any(request)


def test_a_model_fits_where_three_of_it_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SavedModel.find(str(pico.save("llava", tmp_path / "dense")))
    size = sum(4 * parameter.numel() for parameter in source.load().parameters())
    for free, expected in ((3 * size, True), (3 * size - 1, False)):
        monkeypatch.setattr(fitting, "free_memory", lambda free=free: free)
        assert fitting.fits(source) is expected
