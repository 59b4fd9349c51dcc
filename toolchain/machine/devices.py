"""Choosing the device that a step computes on."""

import re

import torch

from vlmc.runtime.errors import EnvironmentLacks, InputError, shortened
from vlmc.toolchain.machine.launch import number_from


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name; None: this process's CUDA GPU where there is one, else the CPU.

    Raises:
        InputError: there is no such kind of device.
        EnvironmentLacks: the machine does not have that GPU.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise InputError(f"unknown device {shortened(name, 40)!r}: give cpu, cuda or cuda:1")
    if name == "cpu":
        return torch.device(name)
    index = int(name.partition(":")[2] or number_from("LOCAL_RANK", 0))
    if index >= torch.cuda.device_count():
        raise EnvironmentLacks(f"this machine has no cuda:{index}: leave --device out, or give --device cpu")
    return torch.device("cuda", index)
