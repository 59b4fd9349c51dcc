"""What vlmc needs beside itself, and the command that brings it; what a backend needs stands in its descriptor."""

from vlmc.exporters import BACKENDS

# package -> (what it is for, the extra that brings it)
_OWN = {
    "torch": ("prune, repair, export", "toolchain"),
    "transformers": ("prune, repair, export", "toolchain"),
    "accelerate": ("repair", "toolchain"),
    "safetensors": ("prune, repair, export", "toolchain"),
    "scikit-learn": ("the demo's pictures", "toolchain"),
    "pyyaml": ("recipes", "toolchain"),
    "pyarrow": ("Parquet data", "data"),
    "datasets": ("data of the hub", "data"),
    "matplotlib": ("the figures of sweep", "all"),
    "onnxruntime": ("run, export", "cpu"),
    "tokenizers": ("run", ""),
}
_OF_BACKENDS = [(name, use, backend.extra) for backend in BACKENDS.values() for name, use in backend.packages.items()]

PACKAGES = {name: (use, extra) for name, use, extra in reversed(_OF_BACKENDS)} | _OWN


def remedy(package: str) -> str:
    """Return the command that brings a package."""
    extra = PACKAGES[package][1]
    command = f"pip install 'vlmc[{extra}]'" if extra else "pip install vlmc"
    return f"{command}, or 'vlmc[gpu]' where there is an NVIDIA GPU" if extra == "cpu" else command
