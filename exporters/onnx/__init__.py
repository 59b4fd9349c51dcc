"""ONNX: torch's exporter for the trace, and the proof that the graph on disk computes the same and is as sparse."""

from vlmc.exporters.backend import Backend

BACKEND = Backend(
    name="onnx",
    title="onnx graphs",
    extra="onnx",
    exporter="vlmc.exporters.onnx.exporter:OnnxExporter",
    suffix=".onnx",
    report="export.json",
    tables="vlmc.exporters.onnx.report:tables",
    packages={"onnx": "export", "onnxscript": "export"},
    options={"precision": "fp32", "cpu_sparse": "", "cpu_activations": "fp32"},
    session="vlmc.runtime.sessions:OnnxSession",
    verifier="vlmc.exporters.onnx.sparsity:check_onnx",
)
