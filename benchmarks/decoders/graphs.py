"""A decoder as an ONNX graph: all but the products is the same for everyone, ONNX Runtime's own fused attention included.

Every layer has weights of its own in the file, whose first outputs are its own. Shapes: O outputs, I inputs.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from decoders.shapes import Decoder, own_OI, weight_OI
from vlmc.runtime.kernels.packing import Array, ValueType, pack

Tensors = dict[str, Array]
Made = dict[str, tuple[str, str, Tensors, dict[str, int]]]
Product = Callable[[str, Array], tuple[str, str, Tensors, dict[str, int]]]
"""From a product's name and weight to operator, domain, its weights by the ends of their names, and attributes."""
BLOCK = 32  # columns that share a scale in MatMulNBits
LONGEST = 1024
BF16_ACTIVATIONS, INT8_ACTIVATIONS = 3, 4  # as an accuracy_level
EPSILON = 1e-6


def plain(name: str, weight: Array) -> tuple[str, str, Tensors, dict[str, int]]:
    """ONNX's MatMul in float32."""
    return "MatMul", "", {"w": np.ascontiguousarray(weight.T)}, {}


def packed(kind: ValueType, level: int = 1) -> Product:
    """Return our operators: 2:4, and dense for the head; `level` is their accuracy_level."""

    def product(name: str, weight: Array) -> tuple[str, str, Tensors, dict[str, int]]:
        dense = name == "head"
        made = pack(weight, kind, dense=dense)
        arrays = {"values": made.values, "positions": made.positions, "": None, "scales": made.scales}
        sizes = {"in_features": made.inputs, "out_features": made.outputs, "span": made.span, "accuracy_level": level}
        found = {end: array for end, array in arrays.items() if array is not None}
        return "MatMulDense" if dense else "MatMul24", "vlmc", found, sizes

    return product


def in_bits(bits: int) -> Product:
    """Return ONNX Runtime's MatMulNBits, dense, rounded to nearest; activations in int8, where it is quickest."""

    def product(name: str, weight: Array) -> tuple[str, str, Tensors, dict[str, int]]:
        outputs, inputs = weight.shape
        blocks, half = weight.reshape(outputs, -1, BLOCK), 1 << (bits - 1)
        scales = np.abs(blocks).max(-1) / np.float32(half - 1) + np.float32(1e-12)
        whole = (np.clip(np.rint(blocks / scales[..., None]), -half, half - 1) + half).astype(np.uint8)
        stored = whole if bits == 8 else whole[..., ::2] | whole[..., 1::2] << 4
        sizes = {"K": inputs, "N": outputs, "bits": bits, "block_size": BLOCK, "accuracy_level": INT8_ACTIVATIONS}
        return "MatMulNBits", "com.microsoft", {"b": stored, "scales": scales.reshape(-1)}, sizes

    return product


def whole(name: str, weight: Array) -> tuple[str, str, Tensors, dict[str, int]]:
    """ONNX Runtime's MatMulInteger, fused with the rounding of x; a dense weight in int8 with a scale for each output."""
    scales = np.abs(weight).max(1) / np.float32(127) + np.float32(1e-12)
    rounded = np.rint(weight / scales[:, None]).astype(np.int8)
    return "DynamicQuantizeMatMul", "com.microsoft", {"w": np.ascontiguousarray(rounded.T), "scales": scales}, {}


def write(decoder: Decoder, product: Product, path: Path) -> int:
    """Write the graph and, beside it, its weights; return the bytes of the products' weights."""
    graph = _Graph(path)
    made = {name: product(name, weight_OI(name, outputs, inputs)) for name, outputs, inputs in decoder.products()}
    columns = {name: inputs for name, _, inputs in decoder.products()}

    def of_layer(number: int) -> Made:
        own = {name: product(name, own_OI(decoder, name, columns[name], number))[2] for name in columns if name != "head"}
        return {
            name: (made[name][0], made[name][1], _begun(made[name][2], part), made[name][3]) for name, part in own.items()
        }

    angles = np.arange(LONGEST)[:, None] / 10000.0 ** (np.arange(0, decoder.head_size, 2) / decoder.head_size)
    for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles)), ("ones", np.ones(decoder.hidden))):
        graph.tensors.append(numpy_helper.from_array(table.astype(np.float32), name))
    x = "inputs_embeds"
    for layer in range(decoder.layers):
        x = graph.layer(decoder, layer, x, of_layer(layer))
    last = graph.add("Gather", [graph.norm(x), graph.number("last", [-1])], "last_row", axis=1)
    graph.product("head", "head", last, made, "logits")
    graph.finish(decoder)
    return graph.nbytes


def _begun(whole: Tensors, own: Tensors) -> Tensors:
    """Return a product's arrays that begin with other outputs: in front, or for ONNX's MatMul in the first columns."""
    found = {end: array.copy() for end, array in whole.items()}
    for end, part in own.items():
        if part.ndim == found[end].ndim == 2 and len(part) == len(found[end]):
            found[end][:, : part.shape[1]] = part
        else:
            found[end][: len(part)] = part
    return found


class _Graph:
    """Nodes and weights in the making; weights go to the file at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.nbytes = path, 0
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._data = path.with_name(f"{path.name}.data").open("wb")

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def number(self, name: str, value: list[int]) -> str:
        self.tensors.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    def norm(self, x: str) -> str:
        return self.add("SimplifiedLayerNormalization", [x, "ones"], f"{x}.norm", axis=-1, epsilon=EPSILON)

    def product(self, name: str, place: str, x: str, made: Made, output: str = "") -> str:
        operator, domain, arrays, sizes = made[name]
        stored = {end: self._store(f"{place}.{end}", array) for end, array in arrays.items()}
        ends = {"MatMul24": ["values", "positions", "", "scales"], "MatMulDense": ["values", "", "scales"]}
        inputs = [x, *(stored.get(end, "") for end in ends.get(operator, list(arrays)))]
        while not inputs[-1]:
            inputs.pop()
        return self.add(operator, inputs, output or f"{place}.y", domain, **sizes)

    def layer(self, decoder: Decoder, number: int, x: str, made: Made) -> str:
        at = f"l{number}"
        normed = self.norm(x)
        q, k, v = (self.product(name, f"{at}.{name}", normed, made) for name in "qkv")
        past = [f"past.{number}.key", f"past.{number}.value"]
        outputs = [f"{at}.attended", f"present.{number}.key", f"present.{number}.value"]
        inputs = [q, k, v, *past, "seqlens_k", "total", "cos", "sin"]
        heads = {"num_heads": decoder.heads, "kv_num_heads": decoder.shared_heads, "do_rotary": 1}
        self.nodes.append(helper.make_node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **heads))
        x = self.add("Add", [x, self.product("o", f"{at}.o", outputs[0], made)], f"{at}.x")
        normed = self.norm(x)
        gate, up = (self.product(name, f"{at}.{name}", normed, made) for name in ("gate", "up"))
        open_gate = self.add("Mul", [gate, self.add("Sigmoid", [gate], f"{at}.sigmoid")], f"{at}.open")
        inner = self.add("Mul", [open_gate, up], f"{at}.inner")
        return self.add("Add", [x, self.product("down", f"{at}.down", inner, made)], f"{at}.out")

    def finish(self, decoder: Decoder) -> None:
        self._data.close()
        cache = [1, decoder.shared_heads, "past", decoder.head_size]
        present = [1, decoder.shared_heads, "total_length", decoder.head_size]
        info, ends = helper.make_tensor_value_info, [f"{n}.{end}" for n in range(decoder.layers) for end in ("key", "value")]
        inputs = [info("inputs_embeds", TensorProto.FLOAT, [1, "length", decoder.hidden])]
        inputs += [info("seqlens_k", TensorProto.INT32, [1]), info("total", TensorProto.INT32, [])]
        inputs += [info(f"past.{end}", TensorProto.FLOAT, cache) for end in ends]
        outputs = [info("logits", TensorProto.FLOAT, [1, 1, decoder.vocabulary])]
        outputs += [info(f"present.{end}", TensorProto.FLOAT, present) for end in ends]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.tensors)
        opsets = [helper.make_opsetid(domain, 1) for domain in ("vlmc", "com.microsoft")] + [helper.make_opsetid("", 18)]
        self.path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())

    def _store(self, name: str, array: Array) -> str:
        content = np.ascontiguousarray(array)
        kind = TensorProto.BFLOAT16 if array.dtype == np.uint16 else helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        self._data.write(bytes(-self._data.tell() % 4096))
        places = {"location": Path(self._data.name).name, "offset": self._data.tell(), "length": content.nbytes}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        self._data.write(content.data)
        self.nbytes += content.nbytes
        self.tensors.append(tensor)
        return name
