"""Asks a running Triton by its own clients, and prints what they got as JSON.

`asking.py HTTP-PORT GRPC-PORT TOKENS PROMPT < IMAGE`
"""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def inputs(client: Any, prompt: bytes, image: bytes, tokens: int) -> list[Any]:
    given = {"prompt": np.array([prompt], np.object_), "image": np.array([image], np.object_)}
    given["max_new_tokens"] = np.array([tokens], np.int64)
    made = []
    for name, array in given.items():
        made.append(client.InferInput(name, list(array.shape), "INT64" if array.dtype == np.int64 else "BYTES"))
        made[-1].set_data_from_numpy(array)
    return made


def said(result: Any) -> dict[str, Any]:
    text, finish = (result.as_numpy(name)[0].decode() for name in ("text", "finish"))
    return {"text": text, "tokens": int(result.as_numpy("tokens")[0]), "finish": finish}


def refusal(open_client: Any, client: Any, *asked: Any) -> str:
    try:
        open_client.infer("vlmc", inputs(client, *asked))
    except tritonclient.utils.InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "accepted"


def streamed(open_client: Any, *asked: Any) -> list[dict[str, Any]]:
    arrived: queue.Queue[Any] = queue.Queue()
    open_client.start_stream(lambda result, error: arrived.put(error or result))
    given = inputs(tritonclient.grpc, *asked)
    open_client.async_stream_infer("vlmc_stream", given, enable_empty_final_response=True)
    pieces = []
    while not (one := arrived.get(timeout=60)).get_response().parameters["triton_final_response"].bool_param:
        pieces.append(said(one))
    open_client.stop_stream()
    return pieces


def main(http: str, grpc: str, tokens: str, prompt: str) -> None:
    asked = (prompt.encode(), sys.stdin.buffer.read(), int(tokens))
    clients = {
        "http": (tritonclient.http.InferenceServerClient(f"127.0.0.1:{http}", network_timeout=60), tritonclient.http),
        "grpc": (tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc}"), tritonclient.grpc),
    }
    found: dict[str, Any] = {}
    for name, (one, client) in clients.items():
        found[name] = said(one.infer("vlmc", inputs(client, *asked)))
        wrong = {"image": (asked[0], b"no image", 1), "prompt": (b"\xff", *asked[1:]), "tokens": (*asked[:2], 0)}
        found[f"{name} refuses"] = {what: refusal(one, client, *given) for what, given in wrong.items()}
    found["pieces"] = streamed(clients["grpc"][0], *asked)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
