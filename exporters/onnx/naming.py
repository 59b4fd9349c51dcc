"""Names of initializers: torch's exporter calls those that it makes itself `val_12`; here they get their modules' names.

A weight that was transposed for a MatMul is called as the module's own, `layers.0.q_proj.weight`; any other constant after
the module that it is used in, or `constant` where several use it.
"""

import ast
from collections import Counter
from typing import Any

from vlmc.exporters.onnx.weights import SCOPES


def name_initializers(graph: Any) -> None:
    """Rename the initializers `val_N` of a graph of onnx_ir in place; the same graph gets the same names."""
    taken, counts = set(graph.initializers), Counter[str]()
    for value in list(graph.initializers.values()):
        if not value.name.startswith("val_"):
            continue
        wanted = _name(value)
        name = wanted
        while name in taken:
            counts[wanted] += 1
            name = f"{wanted}_{counts[wanted]}"
        taken.add(name)
        value.const_value.name = value.name = name


def _name(value: Any) -> str:
    uses = list(value.uses())
    modules = {_module(use.node) for use in uses}
    if len(modules) != 1:
        return "constant"
    [module] = modules
    is_weight = len(value.shape) > 1 and all(use.node.op_type == "MatMul" and use.idx == 1 for use in uses)
    return ".".join(part for part in (module, "weight" if is_weight else "constant") if part)


def _module(node: Any) -> str:
    """Return the innermost module around a node; empty for the graph's own."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""
