"""Triton Inference Server's Python backend on an artifact: many questions at once, answered whole or piece by piece.

`vlmc export --layout triton` writes a model repository that loads it. Inputs and outputs are those of its `config.pbtxt`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlmc.runtime.batching import Batcher, Pending
from vlmc.runtime.errors import Busy, Cancelled, Closed, InputError, VlmcError, one_line
from vlmc.runtime.messages import Message
from vlmc.runtime.model import load
from vlmc.runtime.options import Options

PROMPT, IMAGE = "prompt", "image"
TEXT, TOKENS, FINISH = "text", "tokens", "finish"
OPTIONS: Final[Mapping[str, type[int] | type[float]]] = {
    "max_new_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "seed": int,
}
"""Inputs that may be left out: the fields of `Options`."""
MAX_BATCH: Final = 16
"""Questions that are answered at once, unless the configuration says otherwise."""


class TritonPythonModel:
    """What Triton calls, under the name that it looks for.

    `execute` only hands requests on; each is answered from a thread, so that those that follow join the running batch.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the artifact that the configuration names, as seen from the model's folder.

        Raises:
            VlmcError: as `load`; Triton says it, and does not serve the model.
        """
        self._triton: Any = import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self._streams: bool = config.get("model_transaction_policy", {}).get("decoupled", False)
        folder, most = Path(args["model_repository"]), _whole(given, "max_batch", MAX_BATCH)
        self._model = load((folder / given["artifact"]).resolve(), threads=_whole(given, "threads", 0))
        self._batcher = Batcher(self._model, max_batch=most, max_queue=most)
        self._pool = ThreadPoolExecutor(2 * most, thread_name_prefix="vlmc-triton")

    def execute(self, requests: Iterable[Any]) -> None:
        """Begin to answer; Triton gets the responses later, through each request's sender.

        The inputs are copied now: when this returns, Triton may put others in their memory.
        """
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy().reshape(-1).tolist() for tensor in request.inputs()}
            self._pool.submit(self._answer, inputs, request.get_response_sender())

    def finalize(self) -> None:
        """End what is being answered, as closed, and free the model."""
        self._batcher.close()
        self._pool.shutdown()
        self._model.close()

    def _answer(self, inputs: Mapping[str, list[Any]], sender: Any) -> None:
        final = self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            for response in self._responses(self._batcher.ask(*question(inputs)), sender):
                sender.send(response)
            sender.send(flags=final)
        except Exception as error:  # whatever it is, who asked has to hear of it
            sender.send(self._triton.InferenceResponse(error=self._error(error)), flags=final)

    def _responses(self, pending: Pending, sender: Any) -> Iterator[Any]:
        """Yield the pieces of an answer and its end, or the whole in one; stop where nobody waits for it any more."""
        for piece in pending:
            if sender.is_cancelled():
                pending.cancel()
            elif self._streams:
                yield self._response(piece, 0, "")
        answer = pending.answer()
        yield self._response("" if self._streams else answer.text, len(answer.tokens), answer.finish)

    def _response(self, text: str, tokens: int, finish: str) -> Any:
        values = {TEXT: _texts(text), TOKENS: np.array([tokens], np.int32), FINISH: _texts(finish)}
        return self._triton.InferenceResponse([self._triton.Tensor(name, value) for name, value in values.items()])

    def _error(self, error: Exception) -> Any:
        kinds = self._triton.TritonError
        known: dict[type[Exception], int] = {
            InputError: kinds.INVALID_ARG,
            Busy: kinds.UNAVAILABLE,
            Closed: kinds.UNAVAILABLE,
            Cancelled: kinds.CANCELLED,
        }
        said = str(error) if isinstance(error, VlmcError) else f"the question cannot be answered: {one_line(error)}"
        return kinds(said, known.get(type(error), kinds.INTERNAL))


def question(inputs: Mapping[str, list[Any]]) -> tuple[list[Message], Options]:
    """Return the question that a request's inputs ask: texts and image files as bytes, numbers as numbers.

    Raises:
        InputError: the prompt is missing or no UTF-8, or an option is out of range.
    """
    try:
        prompt = inputs[PROMPT][0].decode("utf-8")
    except (KeyError, IndexError):
        raise InputError(f"there is no question: give it as {PROMPT}") from None
    except UnicodeDecodeError:
        raise InputError(f"{PROMPT} is not UTF-8") from None
    options: dict[str, Any] = {name: kind(inputs[name][0]) for name, kind in OPTIONS.items() if inputs.get(name)}
    return [Message("user", [*inputs.get(IMAGE, []), prompt])], Options(**options)


def _texts(text: str) -> np.ndarray[Any, Any]:
    return np.array([text.encode()], np.object_)


def _whole(given: Mapping[str, str], name: str, usual: int) -> int:
    """Return a parameter of the configuration as a number."""
    value = given.get(name, str(usual))
    if not (value.isascii() and value.isdecimal()):
        raise InputError(f"the parameter {name} of config.pbtxt is {value!r}: give a whole number")
    return int(value)
