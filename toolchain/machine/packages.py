"""The packages that vlmc uses, and the command that installs each; those of a backend are in its descriptor."""

from vlmc.exporters import BACKENDS

# package -> (what it is for, the extra that it is part of)
_OWN = {
    "torch": ("prune, repair, export", "toolchain"),
    "transformers": ("prune, repair, export", "toolchain"),
    "accelerate": ("repair", "toolchain"),
    "safetensors": ("prune, repair, export", "toolchain"),
    "filelock": ("whatever is written", "toolchain"),
    "scikit-learn": ("the demo's images", "toolchain"),
    "pyyaml": ("recipes", "toolchain"),
    "pyarrow": ("Parquet data", "data"),
    "datasets": ("data from the hub", "data"),
    "matplotlib": ("the figures of sweep", "all"),
    "onnxruntime": ("run, export", "cpu"),
    "fastapi": ("serve", "serve"),
    "uvicorn": ("serve", "serve"),
    "prometheus-client": ("serve", "serve"),
    "httpcore2": ("serve", "serve"),
    "tokenizers": ("run", ""),
}
_OF_BACKENDS = [(name, use, backend.extra) for backend in BACKENDS.values() for name, use in backend.packages.items()]

PACKAGES = {name: (use, extra) for name, use, extra in reversed(_OF_BACKENDS)} | _OWN


def remedy(package: str) -> str:
    """Return the command that installs a package."""
    extra = PACKAGES[package][1]
    command = f"pip install 'vlmc[{extra}]'" if extra else "pip install vlmc"
    return f"{command}, or 'vlmc[gpu]' where there is an NVIDIA GPU" if extra == "cpu" else command
