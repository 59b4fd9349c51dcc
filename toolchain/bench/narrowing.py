"""ONNX Runtime's own products of few bits (MatMulNBits), as its tool makes them: dense, rounded to nearest."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 32
"""Columns that share a scale: what ONNX Runtime's kernels are quickest with."""
INT8_ACTIVATIONS = 4
"""The accuracy_level with which activations are rounded to int8, where MatMulNBits is quickest."""


def narrow(graphs: Path, folder: Path, bits: int) -> None:
    """Write a folder of graphs anew, with the stored matrices of their products in 8 or 4 bits."""
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    shutil.copytree(graphs, folder, ignore=shutil.ignore_patterns("*.onnx.data"))
    for path in graphs.glob("*.onnx"):
        how = DefaultWeightOnlyQuantConfig(BLOCK, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS, bits=bits)
        quantizer = MatMulNBitsQuantizer(str(path), bits=bits, algo_config=how)
        quantizer.process()
        (folder / path.name).unlink()
        quantizer.model.save_model_to_file(str(folder / path.name), path.with_suffix(".onnx.data").exists())


@contextmanager
def _quiet() -> Iterator[None]:
    """Undo what the tool does to Python's logging when it is imported, and silence what it says of every node."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
