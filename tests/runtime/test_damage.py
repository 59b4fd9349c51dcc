"""Damaged files and wrong arguments in the Python API: InputError in one line, whatever is wrong."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime import load
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.engine import Engine
from vlmc.runtime.errors import Closed, InputError
from vlmc.runtime.model import Model
from vlmc.runtime.processing.base import Batch
from vlmc.runtime.sessions import Array, Session
from vlmc.runtime.tensors import TensorFile
from vlmc.runtime.text import Text

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", "\udcff", DEEP, '{"a": 1' + "0" * 5000 + "}"], ids=lambda text: text[:8]
)
def test_a_broken_tokenizer_config_is_told(reference: Reference, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes((reference.folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_bytes(os.fsencode(content))
    with pytest.raises(InputError, match=r"tokenizer_config\.json cannot be read"):
        Text(tmp_path)


@pytest.mark.parametrize("content", [DEEP, "[3]", "null", '{"version": {}}', "\udcff"], ids=lambda text: text[:8])
def test_a_broken_deployment_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "deployment.json").write_bytes(os.fsencode(content))
    with pytest.raises(InputError, match=r"deployment\.json (cannot be read|is not valid)"):
        Deployment.read(tmp_path / "deployment.json")


@pytest.mark.parametrize(
    "change",
    [
        {"image_token_id": 10**30},
        {"stop_ids": [-1]},
        {"max_positions": 10**30},
        {"processor": {"kind": "fixed", "image_tokens": 4, "image": {"resize": [10**6, 10**6]}}},
        {"processor": {"kind": "fixed", "image_tokens": 10**9, "image": {}}},
        {"processor": {"kind": "fixed", "image_tokens": 4, "image": {"resample": 77}}},
        {"processor": {"kind": "fixed", "image_tokens": 4, "image": {"std": [0, 1, 1]}}},
    ],
    ids=str,
)
def test_numbers_beyond_reason_are_refused(reference: Reference, tmp_path: Path, change: dict[str, Any]) -> None:
    content = json.loads(reference.deployment.to_json()) | change
    (tmp_path / "deployment.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"deployment\.json is not valid at"):
        Deployment.read(tmp_path / "deployment.json")


GOOD = {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        GOOD | {"dtype": 3},
        GOOD | {"shape": 4},
        GOOD | {"shape": [2.0, 2]},
        GOOD | {"shape": [-2, -2]},
        GOOD | {"shape": [True, 4]},
        GOOD | {"shape": ["2", 2]},
        GOOD | {"shape": [0, 10**30], "data_offsets": [0, 0]},
        GOOD | {"shape": [1] * 100 + [4]},
        GOOD | {"data_offsets": [4, 0]},
        GOOD | {"data_offsets": [0, None]},
        GOOD | {"data_offsets": [0, 1, 4]},
        GOOD | {"data_offsets": {"0": 0}},
    ],
    ids=str,
)
def test_mistyped_headers_of_weights_are_told(tmp_path: Path, entry: object) -> None:
    path, text = tmp_path / "model.safetensors", json.dumps({"weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"abcd")
    with pytest.raises(InputError, match=r"model\.safetensors is (not a readable safetensors file|damaged)"):
        TensorFile(path)


def test_a_deep_header_of_weights_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(DEEP)) + DEEP.encode())
    with pytest.raises(InputError, match="nested too deeply"):
        TensorFile(path)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "a\udcffb", ""])
def test_impossible_names_are_told(name: str) -> None:
    with pytest.raises(InputError):
        load(name)


@pytest.fixture(scope="module")
def ask(reference: Reference) -> Callable[..., Any]:
    model = Model.from_graphs(reference.folder, reference.deployment, reference.folder / "onnx")

    def call(**options: Any) -> object:
        usual = {"image": pico.picture(0), "prompt": "what ?", "max_new_tokens": 1}
        return model.generate(**usual | options)

    return call


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"prompt": "half \ud800"}, "not valid UTF-8 at character 5"),
        ({"prompt": 3}, "the prompt is a int: give a text"),
        ({"image": 3}, "an image is a int: give a path"),
        ({"image": [None]}, "an image is a NoneType: give a path"),
        ({"image": "x" * 300}, "no image at x"),
        ({"image": "a\0b"}, "no image at a"),
        ({"image": b"\xff\xd8"}, "not an image"),
        ({"temperature": float("inf")}, "temperature inf"),
        ({"max_new_tokens": 0}, "give at least 1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_arguments_are_told(ask: Callable[..., Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ask(**options)


def test_a_closed_model_says_so(reference: Reference) -> None:
    with Model.from_graphs(reference.folder, reference.deployment, reference.folder / "onnx") as model:
        pass
    with pytest.raises(Closed, match=r"is closed: load the model again"):
        model.generate(pico.picture(0), "what ?")


class Odd(Session):
    """A graph whose inputs and outputs are none that a model's has."""

    def __init__(self, inputs: dict[str, Any], outputs: dict[str, Array]) -> None:
        self._inputs, self._outputs = inputs, outputs

    @property
    def inputs(self) -> Any:
        return self._inputs

    def run(self, feeds: Any) -> dict[str, Array]:
        return dict(self._outputs)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("embedding", "decoder"),
    [
        ({}, {}),
        ({"inputs_embeds": np.zeros(3)}, {"logits": np.zeros(())}),
        ({"inputs_embeds": np.zeros((1, 2, 4))}, {"logits": np.zeros((1, 1, 4))}),
    ],
    ids=str,
)
def test_graphs_of_another_kind_are_told(
    reference: Reference, embedding: dict[str, Array], decoder: dict[str, Array]
) -> None:
    names = reference.deployment.graphs
    past = {"past_key_values.0.key": (np.dtype("float32"), (None, -1, "x", 3))} if decoder else {}
    sessions = {names.vision: Odd({}, {}), names.embedding: Odd({}, embedding), names.decoder: Odd(past, decoder)}
    two = np.array([[1, 2]])
    with pytest.raises(InputError, match=r"the graphs do not fit each other or deployment\.json .*: export again"):
        Engine(reference.deployment, sessions).prefill(Batch(two, np.ones_like(two), two))
