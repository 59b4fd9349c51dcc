"""Writing changed weights over a model's own: only what has the stored shape and type."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmc.runtime.errors import CheckFailed
from vlmc.toolchain.models.saving import save_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    weights = {"half": torch.ones(2, 4, dtype=torch.float16), "brain": torch.ones(2, 4, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / "model" / "model.safetensors")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "changed",
    [
        {"brain": torch.zeros(2, 4, dtype=torch.float16)},  # as many bytes, other numbers
        {"half": torch.zeros(2, 4, dtype=torch.bfloat16)},
        {"half": torch.zeros(2, 4, dtype=torch.int16)},
        {"half": torch.zeros(2, 2, dtype=torch.float32)},
        {"half": torch.zeros(4, 2, dtype=torch.float16)},
    ],
)
def test_another_type_or_shape_is_refused(changed: dict[str, torch.Tensor], model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckFailed, match=r"is \(\d, \d\) torch.\w+, but \(2, 4\) B?F16 in"):
        save_model(model, tmp_path / "out", changed.items())
    assert all(bool(one.eq(1).all()) for one in load_file(tmp_path / "out" / "model.safetensors").values())


def test_what_fits_takes_the_old_ones_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    brain = torch.randn(2, 4).bfloat16()
    save_model(model, tmp_path / "out", [("brain", brain)])
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["brain"], brain)
    assert bool(found["half"].eq(1).all())
