"""Which TensorRT is installed: `tensorrt` itself, or TensorRT for RTX with the same Python interface."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from vlmc.exporters.tensorrt import BACKEND
from vlmc.runtime.errors import EnvironmentLacks, InputError

LOCAL = "local"  # the GPU in this machine, if torch cannot identify it
DEFAULT_GPUS = tuple(BACKEND.options["gpu"].split(","))
Trt = Any  # neither package has type stubs


@dataclass(frozen=True)
class Binding:
    """An importable TensorRT; TensorRT-RTX builds ahead of time, for GPUs that need not be present."""

    package: str
    trt: Trt

    @property
    def ahead_of_time(self) -> bool:
        """Whether engines are built for named GPUs and finished on the target machine."""
        return self.package == "tensorrt_rtx"

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    def targets(self, gpus: Sequence[str]) -> list[str]:
        """Return the GPUs to build for, without repetitions; if none are given, this TensorRT's default.

        Raises:
            InputError: a name is not a GPU architecture, or this TensorRT cannot build for it.
        """
        wanted = list(dict.fromkeys(gpu.strip().lower() for gpu in gpus))
        return self._ahead_of_time(wanted or DEFAULT_GPUS) if self.ahead_of_time else self._at_hand(wanted)

    def _ahead_of_time(self, wanted: Sequence[str]) -> list[str]:
        known = sorted(self.compute_capabilities, key=lambda name: int(name[2:]))
        for gpu in wanted:
            if not re.fullmatch(r"sm\d+", gpu):
                raise InputError(f"--gpu {gpu!r} is not a GPU architecture: give some of {', '.join(known)}")
            if gpu not in known:
                raise InputError(f"TensorRT-RTX {self.version} cannot build for {gpu}: give some of {', '.join(known)}")
        return list(wanted)

    def _at_hand(self, wanted: Sequence[str]) -> list[str]:
        present = _present()
        for gpu in wanted:
            if gpu != present:
                here = "none that torch can use" if present == LOCAL else present
                raise InputError(
                    f"--gpu {gpu}: TensorRT {self.version} builds only for the GPU in this machine ({here}): "
                    "leave --gpu out, or 'pip uninstall tensorrt' to build for others with TensorRT-RTX"
                )
        return [present]

    @property
    def compute_capabilities(self) -> dict[str, Any]:
        """Map `sm86` and its like to TensorRT-RTX's own values."""
        members = self.trt.ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if re.fullmatch(r"SM\d+", name)}


def _present() -> str:
    if not torch.cuda.is_available():
        return LOCAL
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def bind() -> Binding:
    """Return the TensorRT to use, `tensorrt` before `tensorrt_rtx`.

    Raises:
        EnvironmentLacks: neither can be imported.
    """
    for package in ("tensorrt", "tensorrt_rtx"):
        try:
            module = import_module(package)
        except (ImportError, OSError, RuntimeError):  # also: the vendor's libraries are missing or do not load
            continue
        if getattr(module, "Builder", None) is not None:
            return Binding(package, module)
    raise EnvironmentLacks("neither tensorrt nor tensorrt_rtx can be imported: pip install 'vlmc[tensorrt-rtx]'")
