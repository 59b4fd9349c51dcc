"""The masked low-rank update as one linear map: in torch, and in Triton for NVIDIA GPUs."""
