"""What merge proves: that no adapter is lost, however little it changes, and that what was merged was written."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests import pico
from tests.repair import material
from vlmc.runtime.artifact import Artifact, write
from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.adapters import attach, save_adapter
from vlmc.toolchain.repair.methods import METHODS
from vlmc.toolchain.stages.merge import Merge

pytestmark = pytest.mark.integration

SLOW = pytest.mark.slow
SIZES = [
    (torch.bfloat16, 1e-4),
    pytest.param(torch.bfloat16, 1e-1, marks=SLOW),
    pytest.param(torch.float16, 1e-3, marks=SLOW),
    pytest.param(torch.float32, 1e-4, marks=SLOW),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.dtype, float], SavedModel]:
    """Return pruned pico models with random adapters whose updates are about that part of the weights; each made once."""

    @cache
    def base(dtype: torch.dtype) -> SavedModel:
        folder = tmp_path_factory.mktemp("small")
        pico.save("llava", folder / "dense", dtype)
        return material.pruned(SavedModel.find(str(folder / "dense")), folder / "pruned")

    @cache
    def made(dtype: torch.dtype, size: float) -> SavedModel:
        source = base(dtype)
        artifact, model, folder = Artifact.open(source.folder), source.load(), source.folder.parent / str(size)
        plan = METHODS["ressa"].specs(load_masks(artifact.root, artifact.manifest), source.family.adaptable(model), 4, 8.0)
        adapters = attach(model, plan)
        for layer in adapters.layers.values():
            torch.nn.init.normal_(layer.lora_B, std=size, generator=torch.Generator().manual_seed(1))
        with write(folder) as draft:
            shutil.copytree(artifact.root, draft.root, dirs_exist_ok=True)
            save_adapter(draft.root / "adapter", adapters, METHODS["ressa"], artifact.digest)
            draft.seal(artifact.manifest.model_copy(update={"state": "adapted"}))
        return SavedModel.find(str(folder))

    return made


@pytest.mark.parametrize(("dtype", "size"), SIZES)
def test_adapters_of_any_effect_are_merged_and_one_that_is_lost_is_noticed(
    dtype: torch.dtype,
    size: float,
    small: Callable[[torch.dtype, float], SavedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = small(dtype, size)
    measures = Merge(material.samples(2)).run(source, tmp_path / "true").manifest.history[-1].measures
    assert measures["logit_effect"] > 0
    assert measures["logit_difference"] < 0.25 * measures["logit_effect"] or dtype != torch.float32
    monkeypatch.setattr("vlmc.toolchain.repair.methods.low_rank.MaskedLowRank.merged", lambda self: self.weight)
    with pytest.raises(CheckFailed, match=r"merged weight of .* is not what was trained"):
        Merge(material.samples(2)).run(source, tmp_path / "lost")
    assert not (tmp_path / "lost").exists()


def test_weights_that_are_not_written_are_noticed(
    small: Callable[[torch.dtype, float], SavedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.toolchain.repair.adapters.merging.Merging.weights", lambda self: iter(()))
    with pytest.raises(CheckFailed, match=r"merged weight of .* is not base \+ adapter in model.safetensors"):
        Merge(material.samples(2)).run(small(torch.bfloat16, 1e-2), tmp_path / "lost")
    monkeypatch.setattr("vlmc.toolchain.stages.merge.check_saved", lambda merging, folder: None)
    with pytest.raises(CheckFailed, match="merged model's logits differ"):  # the logits alone tell it too
        Merge(material.samples(2)).run(small(torch.bfloat16, 1e-2), tmp_path / "lost")
    assert not (tmp_path / "lost").exists()
