"""Parameters come out of their files as safetensors itself reads them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile
from vlmc.toolchain.models.streaming.reading import Parameters, Place

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_is_read_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    first, second = torch.arange(-3.0, 4.0).to(dtype), torch.arange(12.0).reshape(3, 4).to(dtype)
    stored = {"first": first, "second": second, "none": torch.zeros(0, 3).to(dtype), "one": torch.tensor(2.0).to(dtype)}
    save_file(stored, tmp_path / "weights.safetensors")
    file = TensorFile(tmp_path / "weights.safetensors")
    for name, tensor in stored.items():
        found = Place(file, name).read()
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.double(), tensor.double())


def test_a_parameter_is_cast_when_it_is_asked_for_and_kept_as_stored_beside(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([1 / 3])}, tmp_path / "weights.safetensors")
    parameters = Parameters()
    parameters.put("layer.weight", Place(TensorFile(tmp_path / "weights.safetensors"), "w"), torch.bfloat16)
    assert list(parameters) == ["layer.weight"]
    assert parameters["layer.weight"].dtype is torch.bfloat16
    assert parameters.stored("layer.weight").item() == torch.tensor(1 / 3).item()


def test_a_file_that_was_cut_short_meanwhile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(100)}, path)
    place = Place(TensorFile(path), "w")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"weights\.safetensors is cut short: copy the file again"):
        place.read()
