"""The masked low-rank update as one linear map: in torch, tile by tile, and in Triton for NVIDIA GPUs."""

from vlmc.toolchain.repair.kernels.autograd import masked_linear
from vlmc.toolchain.repair.kernels.packing import pack, unpack, updated, wide
from vlmc.toolchain.repair.kernels.support import check_kernel

__all__ = ["check_kernel", "masked_linear", "pack", "unpack", "updated", "wide"]
