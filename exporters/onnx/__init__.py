"""ONNX: graphs by torch's exporter, checked on disk to compute the same as the model and to be as sparse."""

from vlmc.exporters.backend import TWINS, Backend

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
BACKEND = Backend(
    name="onnx",
    title="onnx graphs",
    extra="onnx",
    exporter="vlmc.exporters.onnx.exporter:OnnxExporter",
    suffix=".onnx",
    report="export.json",
    tables="vlmc.exporters.onnx.report:tables",
    packages={"onnx": "export", "onnxscript": "export"},
    runtimes=RUNTIMES,
    options={
        "precision": "fp32",
        "cache": "in-place",
        "cpu_sparse": "",
        "cpu_activations": "fp32",
        "packed": "",
        "layout": "",
        **TWINS,
    },
    session="vlmc.runtime.sessions:OnnxSession",
    verifier="vlmc.exporters.onnx.sparsity:check_onnx",
)
