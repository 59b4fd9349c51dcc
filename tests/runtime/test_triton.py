"""What Triton's backend makes of a request's inputs, of an answer and of what goes wrong, with a stand-in for Triton."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vlmc.runtime import Busy, Cancelled, CheckFailed, InputError, Options
from vlmc.runtime import triton as backend
from vlmc.runtime.artifact.unlisted import refuse_unlisted
from vlmc.toolchain.deploy import triton


def test_inputs_become_a_question() -> None:
    messages, options = backend.question({"prompt": [b"how many ?"], "image": [b"one", b"two"], "seed": [7], "top_p": [0.5]})
    assert messages[0].parts == (b"one", b"two", "how many ?")
    assert options == Options(seed=7, top_p=0.5)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "there is no question: give it as prompt"),
        ({"prompt": []}, "there is no question"),
        ({"prompt": [b"\xff"]}, "prompt is not UTF-8"),
        ({"prompt": [b"what ?"], "max_new_tokens": [0]}, "max_new_tokens is 0: give at least 1"),
        ({"prompt": [b"what ?"], "temperature": [float("inf")]}, "temperature inf is out of range"),
    ],
)
def test_a_wrong_input_is_told(inputs: dict[str, list[Any]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        backend.question(inputs)


class Sender:
    """Notes what is sent; whoever asked leaves after so many responses."""

    def __init__(self, leaves_after: int = 99) -> None:
        self.sent: list[tuple[Any, bool]] = []
        self._leaves_after = leaves_after

    def send(self, response: Any = None, flags: int = 0) -> None:
        self.sent.append((response, bool(flags)))

    def is_cancelled(self) -> bool:
        return len(self.sent) >= self._leaves_after


class Ended:
    """An answer's pieces, as a batcher hands them out."""

    def __init__(self, pieces: list[str], error: Exception | None = None) -> None:
        self._pieces, self._error, self.cancelled = pieces, error, False

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if not self.cancelled:
                yield piece
        self.answer()

    def answer(self) -> Any:
        if self.cancelled:
            raise Cancelled("the answer was cancelled")
        if self._error:
            raise self._error
        return SimpleNamespace(text="".join(self._pieces), tokens=(1, 2, 3), finish="stop")

    def cancel(self) -> None:
        self.cancelled = True


def answered(pending: Ended, *, streams: bool, leaves_after: int = 99) -> list[tuple[Any, bool]]:
    """Return what a request is sent, each with whether it is the last."""
    model, sender = backend.TritonPythonModel(), Sender(leaves_after)
    model._triton, model._streams, model._batcher = stand_in(), streams, SimpleNamespace(ask=lambda *_: pending)  # type: ignore[assignment]
    model._answer({"prompt": [b"what ?"]}, sender)
    return sender.sent


def stand_in() -> ModuleType:
    module: Any = ModuleType("triton_python_backend_utils")
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    module.Tensor = lambda name, value: (name, value[0] if value.dtype == np.int32 else value[0].decode())
    module.InferenceResponse = lambda tensors=(), error=None: error or dict(tensors)
    kinds = {"INVALID_ARG": 3, "UNAVAILABLE": 5, "CANCELLED": 8, "INTERNAL": 1}
    module.TritonError = type("TritonError", (), {"__new__": lambda _, *given: given, **kinds})
    found: ModuleType = module
    return found


def test_a_whole_answer_is_one_response() -> None:
    whole = {"text": "a b", "tokens": 3, "finish": "stop"}
    assert answered(Ended(["a", " b"]), streams=False) == [(whole, False), (None, True)]


def test_a_stream_sends_pieces_and_then_the_end() -> None:
    texts = [("a", 0, ""), (" b", 0, ""), ("", 3, "stop")]
    expected = [({"text": text, "tokens": count, "finish": finish}, False) for text, count, finish in texts]
    assert answered(Ended(["a", " b"]), streams=True) == [*expected, (None, True)]


def test_who_leaves_frees_the_place_in_the_batch() -> None:
    pending = Ended(["a", "b", "c"])
    sent = answered(pending, streams=True, leaves_after=1)
    assert pending.cancelled
    assert [one for one, _ in sent] == [{"text": "a", "tokens": 0, "finish": ""}, ("the answer was cancelled", 8)]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("no image"), ("no image", 3)),
        (Busy("full"), ("full", 5)),
        (CheckFailed("broken"), ("broken", 1)),
        (MemoryError("no room"), ("the question cannot be answered: no room", 1)),
    ],
)
def test_an_error_ends_the_request_with_its_code(error: Exception, told: tuple[str, int]) -> None:
    assert answered(Ended([], error), streams=False) == [(told, True)]


@pytest.mark.parametrize("value", ["-1", "a", "1.5", ""])
def test_a_wrong_parameter_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "import_module", lambda _: stand_in())
    config = {"parameters": {"artifact": {"string_value": "../.."}, "max_batch": {"string_value": value}}}
    args = {"model_config": json.dumps(config), "model_repository": "anywhere"}
    with pytest.raises(InputError, match=r"the parameter max_batch of config\.pbtxt is '.*': give a whole number"):
        backend.TritonPythonModel().initialize(args)


def test_the_repository_has_two_models_that_differ_in_how_they_answer() -> None:
    files = triton.repository()
    assert set(files) == {f"{name}/{file}" for name in ("vlmc", "vlmc_stream") for file in ("config.pbtxt", "1/model.py")}
    assert "decoupled: true" in files["vlmc_stream/config.pbtxt"]
    assert "decoupled" not in files["vlmc/config.pbtxt"]
    for name in backend.OPTIONS:
        assert f'name: "{name}"' in files["vlmc/config.pbtxt"]
    compile(files["vlmc/1/model.py"], "model.py", "exec")


def test_what_triton_compiles_beside_its_model_is_no_damage(tmp_path: Path) -> None:
    cached = tmp_path / "triton/vlmc/1/__pycache__"
    cached.mkdir(parents=True)
    (cached / "model.cpython-311.pyc").touch()
    refuse_unlisted(tmp_path, ())
    (cached / "other.cpython-311.pyc").touch()
    with pytest.raises(InputError, match=r"other\.cpython-311\.pyc is not listed"):
        refuse_unlisted(tmp_path, ())
