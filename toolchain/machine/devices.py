"""Choosing the device that a step computes on."""

import os

import torch

from vlmc.runtime.errors import EnvironmentLacks, InputError


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name; None: this process's CUDA GPU where there is one, else the CPU.

    Raises:
        InputError: there is no such kind of device.
        EnvironmentLacks: the machine does not have that GPU.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}: give cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: give cpu, cuda or cuda:1")
    if device.type == "cpu":
        return device
    chosen = torch.device(name if ":" in name else f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if chosen.index >= torch.cuda.device_count():
        raise EnvironmentLacks(f"this machine has no {chosen}: leave --device out, or give --device cpu")
    return chosen
