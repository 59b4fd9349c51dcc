"""export --packed and its twins, and unpack, on a whole artifact."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import pico
from tests.artifacts import pruned, share_operators
from vlmc.exporters.onnx.sparsity import check_onnx
from vlmc.runtime import Artifact, InputError, load
from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.model import Model
from vlmc.runtime.verification import read_files
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import DENSE_TWIN, LORA_TWIN, Export
from vlmc.toolchain.stages.unpack import unpack_artifact, unpack_to

pytestmark = pytest.mark.integration
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A packed export with both twins."""
    share_operators()
    folder = tmp_path_factory.mktemp("twins")
    made = pruned(pico.save("llava", folder / "dense"), folder / "artifact")
    options = ExportSettings(packed=True, dense_twin=True, lora_twin=True)
    Export(options, "onnx", QUIET, dense=str(folder / "dense")).run(made)
    return Artifact.open(made.root)


def weights(path: Path) -> dict[str, bytes]:
    return {one.name: numpy_helper.to_array(one).tobytes() for one in onnx.load(path).graph.initializer}


def zeros(path: Path) -> float:
    """Return the share of zeros of the weights that are multiplied with."""
    sizes = [
        np.asarray(numpy_helper.to_array(one))
        for one in onnx.load(path).graph.initializer
        if one.name.endswith("q_proj.weight")
    ]
    return float(np.mean([(one == 0).mean() for one in sizes if one.ndim == 2]))


def test_twins_are_whole_and_checked(twins: Artifact) -> None:
    twins.verify_files()
    report = json.loads((twins.root / "onnx/export.json").read_text())
    assert set(report["twins"]) == {DENSE_TWIN, LORA_TWIN}
    for twin in report["twins"].values():
        assert twin["agreement"]["answers_that_differ_at_a_tie"] == 0
        assert all(graph["max_error"] < 1e-4 and graph["stored"] is None for graph in twin["graphs"])
    decoder = "decoder_model_merged.onnx"
    assert zeros(twins.root / "onnx" / DENSE_TWIN / decoder) < 0.01 < 0.49 < zeros(twins.root / "onnx" / LORA_TWIN / decoder)
    ours, apart = (weights(twins.root / "onnx" / twin / decoder) for twin in (DENSE_TWIN, LORA_TWIN))
    assert len(apart) >= len(ours) + 7  # A of each Linear of a block; B is zero, and stored once for each shape
    assert [one.violation for one in check_onnx(twins.root / "onnx" / LORA_TWIN / decoder)].count(None) > 0


def test_twin_with_its_adapter_apart_answers_as_the_model(twins: Artifact) -> None:
    folder, sample = twins.root / "onnx" / LORA_TWIN, probes(1)[0]
    asked = (sample.load_images(), sample.question)
    with (
        load(twins.root) as model,
        Model.from_graphs(twins.root, Deployment.read(folder / DEPLOYMENT), folder) as apart,
    ):
        assert model.generate(*asked).tokens == apart.generate(*asked).tokens


def test_loading_reads_no_twin(twins: Artifact) -> None:
    assert not any("twin" in path for path in read_files(twins, "onnx"))
    assert "onnx/decoder_model_merged.onnx" in read_files(twins, "onnx")


def test_dense_twin_needs_the_dense_model(twins: Artifact, tmp_path: Path) -> None:
    other = pico.save("llava", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="is not the model that"):
        Export(ExportSettings(dense_twin=True), "onnx", QUIET, dense=str(other)).run(twins)
    assert Artifact.open(twins.root).manifest == twins.manifest


def test_artifact_and_file_unpack_to_the_same(twins: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoder, sample = twins.root / "onnx/decoder_model_merged.onnx", probes(1)[0]
    with load(twins.root) as model:
        before = model.generate(sample.load_images(), sample.question).tokens
    alone = unpack_to(decoder, tmp_path / "dense.onnx")
    assert alone["bytes"] > alone["bytes_before"] > 0 < alone["weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["dense.onnx"]
    with pytest.raises(InputError, match="exists: name another file"):
        unpack_to(decoder, tmp_path / "dense.onnx")
    capsys.readouterr()
    assert run(["unpack", str(twins.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    report = json.loads((twins.root / "onnx/export.json").read_text())
    assert found["weights"] == len(twins.manifest.layers) - len(report["layers_in_no_graph"])
    Artifact.open(twins.root).verify_files()
    assert weights(decoder) == weights(tmp_path / "dense.onnx")
    with load(twins.root) as model:
        assert model.generate(sample.load_images(), sample.question).tokens == before
    with pytest.raises(InputError, match="are not packed: there is nothing to unpack"):
        unpack_artifact(twins.root, Progress(quiet=True))
    assert (twins.root / "onnx" / DENSE_TWIN / "decoder_model_merged.onnx").is_file()
