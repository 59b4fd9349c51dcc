"""Turns graph descriptions into ONNX graphs and TensorRT engines; knows no model family."""
