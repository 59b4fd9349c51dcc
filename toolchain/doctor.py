"""doctor: what this machine can do, and the command that mends what is missing."""

import importlib.util
import os
import platform
import shutil
from typing import Any

from vlmc.runtime import __version__
from vlmc.toolchain.packages import PACKAGES, remedy
from vlmc.toolchain.tables import show_table
from vlmc.toolchain.versions import version_of

TENSORRT = {
    "tensorrt": "TensorRT engines, with a GPU",
    "tensorrt-rtx": "TensorRT-RTX engines, built without a GPU",
}


def examine() -> dict[str, Any]:
    """Return versions, ONNX Runtime's providers, the GPU, and what is missing with the command that mends it."""
    packages = {name: version_of(name) for name in (*PACKAGES, *TENSORRT)}
    missing = {name: remedy(name) for name in PACKAGES if packages[name] is None}
    if not any(packages[name] for name in TENSORRT):
        missing["tensorrt-rtx"] = "pip install 'vlmc[tensorrt-rtx]'"
    return {
        "vlmc": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "packages": packages,
        "providers": _providers(),
        "gpu": _gpu(),
        "missing": missing,
    }


def show_findings(found: dict[str, Any]) -> None:
    """Print the findings."""
    print(f"vlmc {found['vlmc']}, Python {found['python']}, {found['platform']}, {found['disk_free_gb']} GB free here")
    uses = {name: use for name, (use, _) in PACKAGES.items()} | TENSORRT
    rows = [(name, version or "-", uses[name]) for name, version in found["packages"].items()]
    show_table(("package", "version", "for"), rows)
    print("ONNX Runtime providers: " + (", ".join(found["providers"]) or "none"))
    print("GPU: " + (found["gpu"] or "none that torch can use"))
    for name, command in found["missing"].items():
        print(f"missing: {name}; get it with: {command}")
    if not found["missing"]:
        print("nothing is missing")


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return [str(name) for name in onnxruntime.get_available_providers()]


def _gpu() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
