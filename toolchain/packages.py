"""What vlmc needs beside itself, and the command that brings it."""

# package -> (what it is for, the extra that brings it)
PACKAGES = {
    "torch": ("prune, repair, export", "toolchain"),
    "transformers": ("prune, repair, export", "toolchain"),
    "accelerate": ("repair", "toolchain"),
    "safetensors": ("prune, repair, export", "toolchain"),
    "scikit-learn": ("the demo's pictures", "toolchain"),
    "pyyaml": ("recipes", "toolchain"),
    "gguf": ("fetching smol", "smol"),
    "pyarrow": ("Parquet data", "data"),
    "datasets": ("data of the hub", "data"),
    "onnx": ("export", "onnx"),
    "onnxscript": ("export", "onnx"),
    "matplotlib": ("the figures of sweep", "all"),
    "onnxruntime": ("run", ""),
    "tokenizers": ("run", ""),
}


def remedy(package: str) -> str:
    """Return the command that brings a package."""
    extra = PACKAGES[package][1]
    return f"pip install 'vlmc[{extra}]'" if extra else "pip install vlmc"
