"""doctor: what this machine can do, and the command that installs what is missing."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from typing import Any

from vlmc.exporters import BACKENDS
from vlmc.runtime import __version__
from vlmc.runtime.errors import EnvironmentLacks
from vlmc.runtime.kernels import native
from vlmc.runtime.kernels.speed import TYPES
from vlmc.runtime.sessions import import_onnxruntime
from vlmc.toolchain.machine.packages import PACKAGES, remedy
from vlmc.toolchain.machine.speeds import machine_speeds
from vlmc.toolchain.machine.versions import version_of
from vlmc.toolchain.reporting.tables import show_table

BUSY = 0.5
"""The load from which a measurement is disturbed."""


def examine() -> dict[str, Any]:
    """Return versions, ONNX Runtime's providers, the GPU, what is missing or wrong, and what fixes it."""
    runtimes = sorted(set(packages_distributions().get("onnxruntime", [])))  # onnxruntime, onnxruntime-gpu, both or none
    names = [name for name in _uses() if name != "onnxruntime"]
    packages = {name: version_of(name) for name in (*names, *(runtimes or ["onnxruntime"]))}
    missing = {name: remedy(name) for name in PACKAGES if packages.get(name, "") is None}
    for backend in BACKENDS.values():
        if backend.alternatives and not any(packages[name] for name in backend.alternatives):
            missing[backend.extra] = backend.remedy
    load, speed = _load(), _cpu_speed()
    return {
        "vlmc": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": packages,
        "providers": _providers(),
        "gpu": _gpu(),
        "cpu_kernels": native.instruction_sets(),
        "cpu_speed": speed,
        "missing": missing,
        "warnings": _overwritten(runtimes) + (_busy(load) if speed else []),
    }


def show_findings(found: dict[str, Any]) -> None:
    """Print the findings."""
    print(f"vlmc {found['vlmc']}, Python {found['python']}, {found['platform']}, {found['disk_free_gb']} GB free here")
    uses = _uses()
    onnxruntime = uses["onnxruntime"]  # its packages have several names
    rows = [(name, version or "-", uses.get(name, onnxruntime)) for name, version in found["packages"].items()]
    show_table(("package", "version", "for"), rows)
    print("ONNX Runtime providers: " + (", ".join(found["providers"]) or "none"))
    print("GPU: " + (found["gpu"] or "none that torch can use"))
    print("2:4 kernels for the CPU: " + (", ".join(found["cpu_kernels"]) or f"not built: {native.REMEDY}"))
    if found["cpu_speed"]:
        print(_said(found["cpu_speed"]))
    for name, command in found["missing"].items():
        print(f"missing: {name}; get it with: {command}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")
    if not found["missing"]:
        print("nothing is missing")


def _cpu_speed() -> dict[str, Any] | None:
    """Measure for two seconds what decoding with 2:4 weights gains here; None: there are no kernels."""
    if native.library() is None:
        return None
    found = machine_speeds()
    gains = {kind: round(found.gain(kind), 2) for kind in TYPES}
    return {"threads": found.threads, "read_gb_per_second": round(found.bytes_read / 1e9, 1), "decode_gain": gains}


def _said(speed: dict[str, Any]) -> str:
    gains = ", ".join(f"{kind} {gain}x" for kind, gain in speed["decode_gain"].items())
    return (
        f"memory: {speed['read_gb_per_second']} GB/s with {speed['threads']} threads; predicted for one row of a large 2:4 "
        f"layer, over dense fp32: {gains}"
    )


def _uses() -> dict[str, str]:
    """Map every package that vlmc can use to what it is for."""
    certain = {name: use for name, (use, _) in PACKAGES.items()}
    return certain | {name: use for backend in BACKENDS.values() for name, use in backend.alternatives.items()}


def _overwritten(runtimes: Sequence[str]) -> list[str]:
    """Warn of several packages that write into the folder `onnxruntime`: they overwrite each other's files."""
    if len(runtimes) < 2:
        return []
    return [
        f"{' and '.join(runtimes)} overwrite each other: pip uninstall -y {' '.join(runtimes)}, then {remedy('onnxruntime')}"
    ]


def _load() -> float:
    """Return how many processes wanted a core in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _busy(load: float) -> list[str]:
    """Warn of other programs, beside which speeds were measured."""
    if load < BUSY:
        return []
    return [
        f"other programs were busy in the minute before (load {load:.1f}), so speeds and the prediction may be off: "
        "run doctor again when they rest"
    ]


def _providers() -> list[str]:
    try:
        return [str(name) for name in import_onnxruntime().get_available_providers()]
    except EnvironmentLacks:
        return []


def _gpu() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
