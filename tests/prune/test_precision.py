"""The type that samples run in: what `auto` comes to, what stays float32, and that it never touches the weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import pico
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import precision
from vlmc.toolchain.prune.journal import Journal
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings
from vlmc.toolchain.stages.prune import Prune

CPU = torch.device("cpu")


def prune(source: SavedModel, out: Path, *, resume: bool = False, **options: object) -> Artifact:
    settings = PruneSettings.model_validate({"calibration": 2, "vision": "none", **options})
    return Prune(settings, resume=resume).run(source, out)


def dense(folder: Path, dtype: torch.dtype = torch.float16, family: str = "llava") -> SavedModel:
    return SavedModel.find(str(pico.save(family, folder / "dense", dtype)))


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx", [False, True])
def test_a_cpu_is_fast_in_bfloat16_where_it_has_instructions_for_it(
    avx: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    found = [precision.is_fast(dtype, CPU) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert found == [True, avx or amx, False]


@pytest.mark.parametrize(
    ("stored", "quick", "chosen"),
    [
        (torch.bfloat16, True, "bf16"),
        (torch.bfloat16, False, "fp32"),
        (torch.float16, True, "fp16"),
        (torch.float32, True, "fp32"),
        (torch.float64, True, "fp32"),
    ],
)
def test_auto_is_the_models_own_type_where_the_device_is_fast_in_it(
    stored: torch.dtype, quick: bool, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "is_fast", lambda dtype, device: quick)
    source = dense(tmp_path, stored)
    assert precision.choose_precision("auto", source.folder, CPU) == chosen
    assert precision.choose_precision("fp16", source.folder, CPU) == "fp16"


@pytest.mark.integration
def test_narrow_passes_leave_the_weights_that_stay_as_they_were(tmp_path: Path) -> None:
    source = dense(tmp_path, torch.float32)
    artifact = prune(source, tmp_path / "out", method="wanda", precision="bf16")
    assert artifact.manifest.history[0].measures["precision"] == "bf16"
    before, after = source.load(), SavedModel.find(str(artifact.root)).load()
    for name in artifact.manifest.layers:
        weights = [model.get_parameter(f"{name}.weight") for model in (before, after)]
        kept = weights[1] != 0
        assert torch.equal(weights[0][kept], weights[1][kept]), name


@pytest.mark.integration
def test_a_run_goes_on_in_the_type_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dense(tmp_path, torch.bfloat16)

    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "write", stopped)
        patch.setattr(precision, "is_fast", lambda dtype, device: True)
        prune(source, tmp_path / "out")
    monkeypatch.setattr(precision, "is_fast", lambda dtype, device: False)
    with pytest.raises(InputError, match="its precision was 'bf16', now it is 'fp32'"):
        prune(source, tmp_path / "out", resume=True)


@pytest.mark.integration
@pytest.mark.parametrize(("chosen", "wide"), [(torch.float16, True), (torch.bfloat16, False)])
def test_what_transformers_keeps_in_float32_stays_so(chosen: torch.dtype, wide: bool, tmp_path: Path) -> None:
    model = dense(tmp_path, family="blip-2-t5").stream(CPU, chosen)
    types: dict[str, torch.dtype] = {name: one.dtype for name, one in model.module.named_parameters()}
    kept = {name for name, dtype in types.items() if dtype is torch.float32}
    assert {name for name in types if ".wo." in name or "query_tokens" in name} <= kept if wide else not kept
    assert set(types.values()) <= {torch.float32, chosen}


@pytest.mark.integration
def test_ecoflap_takes_its_losses_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = dense(tmp_path), []
    from vlmc.toolchain.prune.ratios import blocks

    def scored(groups: dict[str, list[Tensor]], *given: object) -> dict[str, float]:
        seen.extend(weight.dtype for weights in groups.values() for weight in weights)
        return dict.fromkeys(groups, 1.0)

    monkeypatch.setattr(blocks, "zeroth_order", scored)
    prune(source, tmp_path / "out", precision="bf16", ratios="ecoflap", target="50%")
    assert set(seen) == {torch.float32}


def test_compress_tells_pruning_and_training_apart() -> None:
    options = CompressSettings(precision="bf16", prune_precision="fp32")
    assert (options.of(PruneSettings).precision, options.of(RepairSettings).precision) == ("fp32", "bf16")
    assert CompressSettings().of(PruneSettings).precision == "auto"
