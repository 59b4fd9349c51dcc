from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile, open_weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gives_the_bits_of_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0.0, -0.0, 1.5], [2.0, 0.0, -3.0]]).to(dtype)
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    bits = TensorFile(tmp_path / "model.safetensors")["w"]
    assert bits.tobytes() == tensor.view(torch.uint8).numpy().tobytes()
    assert bits.shape == (2, 3)
    assert not bits.flags.writeable


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_notices_truncation_anywhere(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(8, 8)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        TensorFile(path)


@pytest.mark.parametrize("content", [b"not a tensor file at all", b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"w":{}}'])
def test_refuses_what_is_no_tensor_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors"):
        TensorFile(tmp_path / "model.safetensors")


def test_shards_are_read_together_and_masks_apart(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-2.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "masks.safetensors")
    assert sorted(open_weights(tmp_path)) == ["a", "b"]


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no safetensors"):
        open_weights(tmp_path)
