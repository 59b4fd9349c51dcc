"""The trained demos, pruned, answer 200 test questions through the graphs token for token as in transformers."""

from pathlib import Path

import pytest

from tests.artifacts import pruned
from vlmc.runtime import load
from vlmc.toolchain import builtin, data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.deploy.agreement import greedy
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "demo-blip2"])
def test_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    made = pruned(builtin.models()[name].locate(), tmp_path / "artifact")
    report = Export(ExportSettings(), "onnx", Progress(quiet=True)).run(made)
    assert max(graph["max_error"] for graph in report["graphs"]) < 1e-5
    saved = SavedModel.find(str(made.root))
    model = saved.load()
    encoder = Encoder(saved.load_processor(), saved.family, model)
    with load(made.root, threads=1) as runtime:
        for sample in data.load("demo", "test", 200):
            expected, _ = greedy(model, encoder, sample, 16)
            found = runtime.generate(sample.load_image(), sample.question, max_new_tokens=16)
            assert list(found.tokens) == expected, sample.id
