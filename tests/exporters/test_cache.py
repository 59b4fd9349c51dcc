"""A cache in place and one that is concatenated give the same tokens, alone and in a batch; who needs the other gets it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests import pico
from tests.artifacts import exported
from vlmc.runtime import Batcher, Message, Model, Options, load
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

pytestmark = pytest.mark.integration

FAMILY = "llava"
IMAGES = [pico.picture(seed, 32, 32) for seed in range(3)]
DECODER = "onnx/decoder_model_merged.onnx"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact exported as usual, and with a concatenated cache."""
    usual = exported(FAMILY, tmp_path_factory.getbasetemp())
    other = tmp_path_factory.mktemp("cache") / "concatenated"
    shutil.copytree(usual, other)
    Export(ExportSettings(cache="concatenated", layout="triton"), "onnx", Progress(quiet=True)).run(Artifact.open(other))
    return usual, other


@pytest.fixture
def models(folders: tuple[Path, Path]) -> Iterator[list[Model]]:
    with load(folders[0], threads=1) as one, load(folders[1], threads=1) as other:
        yield [one, other]


def test_the_files_say_which_it_is(folders: tuple[Path, Path]) -> None:
    for folder, layout, opset in zip(folders, ("in-place", "concatenated"), (24, 18), strict=True):
        deployment = Artifact.open(folder).deployment("onnx")
        assert deployment is not None
        assert deployment.cache == layout
        model = onnx.load(folder / DECODER)
        assert {one.version for one in model.opset_import if not one.domain} == {opset}
        operators = {node.op_type for node in model.graph.node}
        newer = {"TensorScatter", "Attention", "RMSNormalization", "RotaryEmbedding"}
        assert operators & newer == (newer if layout == "in-place" else set())
        assert ("Reciprocal" in operators) == (layout == "concatenated")
        tokens = model.graph.output[0].type.tensor_type.shape.dim[1]
        assert (tokens.dim_value, tokens.dim_param) == ((1, "") if layout == "in-place" else (0, "sequence"))
        assert ("write_indices" in {one.name for one in model.graph.input}) == (layout == "in-place")


def test_a_repository_for_triton_is_part_of_the_artifact(folders: tuple[Path, Path]) -> None:
    listed = [[path for path in Artifact.open(folder).manifest.files if path.startswith("triton/")] for folder in folders]
    models = ("vlmc", "vlmc_stream")
    assert listed == [[], sorted(f"triton/{name}/{file}" for name in models for file in ("1/model.py", "config.pbtxt"))]


def test_a_model_alone_gives_the_same_tokens(models: list[Model]) -> None:
    for number, image in enumerate(IMAGES):
        one, other = (model.generate(image, pico.QUESTIONS[number], max_new_tokens=12).tokens for model in models)
        assert one == other


def test_a_batch_gives_the_tokens_of_a_model_alone(models: list[Model]) -> None:
    """Prompts in chunks of 8 tokens, rows of unlike lengths that leave at unlike times."""
    asked = [([IMAGES[n % 3], pico.QUESTIONS[n % 2] + " and why" * n], 4 + 3 * n) for n in range(4)]
    questions = [([Message("user", content)], Options(max_new_tokens=tokens)) for content, tokens in asked]
    for model in models:
        alone = [model.chat(messages, max_new_tokens=options.max_new_tokens).tokens for messages, options in questions]
        with Batcher(model, max_batch=3, chunk=8) as batcher:
            pending = [batcher.ask(messages, options) for messages, options in questions]
            assert [one.answer(60).tokens for one in pending] == alone
