"""Spoiling ONNX files: as protobuf's bytes, or as graphs that are well formed and not what the runtime expects."""

from random import Random
from typing import Any

from tests.fuzz.spoiling import TEXTS, Spoiled, spoil_bytes


def spoil_graph(random: Random, content: bytes) -> Spoiled:
    """Spoil a graph in one place."""
    if random.random() < 0.4:
        return spoil_bytes(random, content)
    import onnx

    model = onnx.load_model_from_string(content)
    what = random.choice([_retype, _rename, _reshape, _lose, _send_outside, _note, _revalue, _rewire])(random, model)
    return model.SerializeToString(), what


def retype_input(content: bytes, kind: int) -> bytes:
    """Return the graph with its first input of another type (ONNX's number)."""
    import onnx

    model = onnx.load_model_from_string(content)
    model.graph.input[0].type.tensor_type.elem_type = kind
    return bytes(model.SerializeToString())


def _retype(random: Random, model: Any) -> str:
    node = random.choice([*model.graph.input, *model.graph.output])
    node.type.tensor_type.elem_type = random.choice([0, 1, 2, 7, 8, 9, 10, 11, 14, 16, 17])
    return f"{node.name} of type {node.type.tensor_type.elem_type}"


def _rename(random: Random, model: Any) -> str:
    node = random.choice([*model.graph.input, *model.graph.output])
    old, node.name = node.name, random.choice(TEXTS).encode("utf-8", "replace").decode()
    return f"{old} renamed"


def _reshape(random: Random, model: Any) -> str:
    node = random.choice([*model.graph.input, *model.graph.output])
    for dimension in node.type.tensor_type.shape.dim:
        dimension.dim_value = random.choice([0, 1, 7, 2**40, -1])
    return f"other dimensions of {node.name}"


def _lose(random: Random, model: Any) -> str:
    part = random.choice([model.graph.initializer, model.graph.node, model.graph.input, model.graph.output])
    if part:
        del part[random.randrange(len(part))]
    return "a part left out"


def _send_outside(random: Random, model: Any) -> str:
    """Let an initializer lie in another file, as large models' do."""
    tensor = random.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    place = random.choice(["../../outside/canary.txt", "/etc/passwd", "/dev/zero", "nowhere.bin", "export.json"])
    for key, entry in (("location", place), ("offset", "0"), ("length", str(random.choice([4, 2**40])))):
        noted = tensor.external_data.add()
        noted.key, noted.value = key, entry
    return f"weights in {place}"


def _note(random: Random, model: Any) -> str:
    for noted in model.metadata_props:
        noted.value = random.choice(["", "[]", "{", '{"a": 1}', "[" * 5000, *TEXTS]).encode("utf-8", "replace").decode()
    return "other notes in the metadata"


def _revalue(random: Random, model: Any) -> str:
    tensor = random.choice([one for one in model.graph.initializer if one.raw_data])
    tensor.raw_data = bytes(len(tensor.raw_data)) if random.random() < 0.5 else b"\xff" * len(tensor.raw_data)
    return f"values of {tensor.name}"


def _rewire(random: Random, model: Any) -> str:
    node = random.choice(model.graph.node)
    if node.input:
        node.input[0] = random.choice([node.output[0] if node.output else "", "nothing", ""])
    return f"another input of {node.name!a}"
