"""TensorRT engines, by `tensorrt` with a GPU or by `tensorrt_rtx` without one, and a build report."""

from vlmc.exporters.backend import TWINS, Backend
from vlmc.exporters.onnx import RUNTIMES

BACKEND = Backend(
    name="tensorrt",
    title="tensorrt engines",
    extra="tensorrt-rtx",
    exporter="vlmc.exporters.tensorrt.exporter:TensorrtExporter",
    suffix=".engine",
    report="build.json",
    tables="vlmc.exporters.tensorrt.report:tables",
    packages={"onnx": "export", "onnxscript": "export"},
    alternatives={
        "tensorrt": "TensorRT engines, with a GPU",
        "tensorrt-rtx": "TensorRT-RTX engines, built without a GPU",
    },
    runtimes=RUNTIMES,
    options={"precision": "fp16", "gpu": "sm86,sm89", "require_sparse": "", "workspace": "", **TWINS},
)
