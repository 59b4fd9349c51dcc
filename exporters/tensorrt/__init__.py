"""TensorRT engines, by `tensorrt` on a machine with a GPU or by `tensorrt_rtx` anywhere, with an honest build report."""
