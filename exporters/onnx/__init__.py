"""ONNX: torch's exporter for the trace, and the proof that the graph on disk computes the same and is as sparse."""
