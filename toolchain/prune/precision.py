"""The type that calibration samples run in; statistics, Hessians and the pruning itself are float32 whatever it is."""

from collections import Counter
from pathlib import Path

import torch

from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.models.streaming.reading import FLOATS
from vlmc.toolchain.settings import CalibrationPrecision

TYPES: dict[CalibrationPrecision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def choose_precision(asked: CalibrationPrecision, folder: Path, device: torch.device) -> CalibrationPrecision:
    """Return what `auto` means: the type of the model in `folder` where the device is fast in it, else fp32."""
    if asked != "auto":
        return asked
    own = stored_type(folder)
    return NAMES[own] if own in NAMES and is_fast(own, device) else "fp32"


def stored_type(folder: Path) -> torch.dtype | None:
    """Return the type that most weights of a model are stored in; None for one that cannot be computed in."""
    bytes_of: Counter[str] = Counter()
    for name, file in open_weights(folder).items():
        begin, end = file.span(name)
        bytes_of[file.dtype(name)] += end - begin
    return FLOATS.get(bytes_of.most_common(1)[0][0]) if bytes_of else None


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device multiplies matrices of that type at least as fast as float32 ones.

    CPUs without AVX512-BF16 or AMX only emulate bfloat16; float16 is slow in torch on all of them.
    """
    if dtype is torch.float32:
        return True
    if device.type == "cuda":
        return dtype is torch.float16 or torch.cuda.get_device_capability(device)[0] >= 8
    return dtype is torch.bfloat16 and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
