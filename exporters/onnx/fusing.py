"""One operator of ONNX for what torch writes in many: RMS norm and rotary position embedding, by onnxscript's rules.

Each of the many reads and writes all activations once, and costs a runtime a few microseconds for every token.
"""

from typing import Any

SINCE = 23
"""The version of ONNX's operators that has them."""


def fuse(model: Any) -> Any:
    """Return a model of onnx_ir, in operators from `SINCE` on, with fewer nodes; the given one is not to be used again."""
    import onnx_ir.passes.common as passes  # here, so that it is not loaded for graphs that are not traced
    from onnxscript.rewriter import onnx_fusions

    version = model.opset_imports[""]
    model.opset_imports[""] = SINCE  # its rules ask for this version, and hold for later ones too
    onnx_fusions.fuse(model)
    model.opset_imports[""] = version
    for tidy in (passes.CommonSubexpressionEliminationPass(), passes.RemoveUnusedNodesPass()):
        model = tidy(model).model
    return model
