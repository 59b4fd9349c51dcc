"""Whether the Triton kernels run here."""

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain.settings import Kernel

MOST_RANKS = 128
"""More would not fit in the shared memory of every GPU that is supported."""


def check_kernel(kernel: Kernel, rank: int, device: torch.device) -> None:
    """Raise EnvironmentLacks where this device cannot run the kernel for adapters of this rank."""
    probe = torch.empty(0, device=device)
    if kernel == "triton" and not supports(probe, probe, rank):
        raise EnvironmentLacks(
            "--kernel triton needs an NVIDIA GPU of compute capability 8.0 or later, the package triton (pip install "
            f"triton) and at most {MOST_RANKS} ranks; --kernel tiled runs everywhere"
        )


def supports(x: Tensor, weight_OI: Tensor, rank: int) -> bool:
    """Whether the kernels take these: float32, bfloat16 or float16, up to 128 ranks, an NVIDIA GPU of sm80 or later.

    On a CPU only Triton's interpreter runs them, where TRITON_INTERPRET is 1 in the environment, and for a float32 x alone:
    it multiplies bfloat16 wrongly.
    """
    types = (torch.float32, torch.bfloat16, torch.float16)
    typed = x.dtype in types and weight_OI.dtype in types
    return typed and rank <= MOST_RANKS and x.device == weight_OI.device and _installed() and _runs_on(x)


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _runs_on(x: Tensor) -> bool:
    if x.device.type == "cuda":
        return torch.version.cuda is not None and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return x.device.type == "cpu" and x.dtype == torch.float32 and os.environ.get("TRITON_INTERPRET") == "1"
