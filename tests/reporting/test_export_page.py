"""reports/export.html and .json: what the exports of an artifact amount to, from the reports beside the graphs."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import exported
from tests.reporting.material import Seen
from vlmc.runtime import Artifact
from vlmc.toolchain.reporting.export_page import page
from vlmc.toolchain.reporting.export_summary import summarise
from vlmc.toolchain.reporting.paths import EXPORTS, EXPORTS_PAGE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.open(exported("llava", tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="module")
def found(artifact: Artifact) -> dict[str, Any]:
    return summarise(artifact)


def test_the_summary_is_that_of_the_files(artifact: Artifact, found: dict[str, Any]) -> None:
    artifact.verify_files()
    assert json.loads((artifact.root / EXPORTS).read_text())["backends"] == found["backends"]
    graphs = found["backends"]["onnx"]["graphs"]
    layers = [layer["layer"] for graph in graphs for layer in graph["layers"]]
    report = json.loads((artifact.root / "onnx/export.json").read_text())
    assert len(layers) + len(report["layers_in_no_graph"]) == len(artifact.manifest.layers)
    for graph in graphs:
        assert graph["bytes"] == sum(
            path.stat().st_size for path in (artifact.root / "onnx").glob(f"{graph['graph']}.onnx*")
        )
        dense = sum(4 * layer["rows"] * layer["columns"] for layer in graph["layers"])
        assert graph["weights"]["in_file"] == graph["weights"]["dense"] == dense
        assert graph["weights"]["packed"] * 32 == dense * 17
    assert (
        f"{len(layers)} weights hold their promised pattern, read from the graphs' files"
        in found["backends"]["onnx"]["proven"]
    )


def test_what_rounding_changes_is_told_apart(artifact: Artifact, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(artifact.root, tmp_path / "artifact"))
    report = json.loads((copied / "onnx/export.json").read_text())
    for graph in report["graphs"]:
        graph["rounding_error"] = 0.04
    (copied / "onnx/export.json").write_text(json.dumps(report))
    onnx = summarise(Artifact.open(copied, sizes=False))["backends"]["onnx"]
    assert any("are transformers' greedy ones with the graphs' rounded weights" in line for line in onnx["proven"])
    assert (
        "what rounding does to answers: it changes torch's outputs by up to 4.0e-02 of their largest value"
        in onnx["not_proven"]
    )


def test_the_page_is_whole_in_itself_and_draws_every_layer(artifact: Artifact, found: dict[str, Any]) -> None:
    text = (artifact.root / EXPORTS_PAGE).read_text(encoding="utf-8")
    seen = Seen(text)
    assert seen.refers == []
    assert "script" not in seen.tags
    graphs = found["backends"]["onnx"]["graphs"]
    assert seen.tags.count("rect") == sum(len(graph["layers"]) for graph in graphs)
    assert all(f"<td>{graph['graph']}</td>" in text for graph in graphs)
    assert "speed: an export measures none" in text


def test_names_are_text(found: dict[str, Any]) -> None:
    hostile = deepcopy(found) | {"model": "<script>alert(1)</script>"}
    hostile["backends"]["onnx"]["graphs"][0]["graph"] = "<img src='x'>"
    assert Seen(page(hostile)).tags.count("script") == 0
    assert Seen(page(hostile)).refers == []


def test_a_layer_without_zeros_stands_out(found: dict[str, Any]) -> None:
    broken = deepcopy(found)
    graph = next(one for one in broken["backends"]["onnx"]["graphs"] if one["layers"])
    graph["layers"][0]["sparsity"] = 0.0
    assert "class='low'" in page(broken)
    assert "class='low'" not in page(found)


def test_engines_are_listed(found: dict[str, Any]) -> None:
    engine = {"graph": "decoder", "gpu": "sm86", "file": "decoder-sm86.engine", "bytes": 2_000_000, "note": "n"}
    with_engines = deepcopy(found)
    with_engines["backends"]["onnx"]["engines"] = [
        engine | {"eligible": 8, "chosen": None},
        engine | {"eligible": 8, "chosen": 6},
    ]
    text = page(with_engines)
    assert "<td>not known</td>" in text
    assert "<td>6</td>" in text
    assert "<td>2.00 MB</td>" in text
