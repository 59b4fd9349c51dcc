"""A model in Ray Serve, two replicas: `python examples/ray_serve.py artifact`, needs `pip install 'vlmc[cpu]' 'ray[serve]'`.

On a cluster (`ray start --head`, then `ray start --address HEAD:6379` on the other machines) Ray puts the replicas on
several machines; the artifact has to lie at the same path on each.

curl --data-binary @image.png 'http://127.0.0.1:8000/?question=what+is+shown'
"""

import sys
from asyncio import to_thread
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from vlmc.runtime import Batcher, Busy, InputError, Message, Options, load


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Vlm:
    """A replica: a model of its own, with a batcher."""

    def __init__(self, artifact: str) -> None:
        self._batcher = Batcher(load(artifact, threads=1), max_batch=8)

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer a question about the image in the body."""
        turn = Message("user", [await request.body(), request.query_params.get("question", "")])
        try:
            pending = await to_thread(self._batcher.ask, [turn], Options(max_new_tokens=64))
        except InputError as error:
            return JSONResponse({"error": str(error)}, 422)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 429)
        answer = await pending.wait()
        return JSONResponse({"answer": answer.text, "replica": serve.get_replica_context().replica_id.unique_id})


def application(artifact: str) -> Any:
    """Return what Ray Serve deploys."""
    return Vlm.bind(artifact)


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2]) if len(sys.argv) > 2 else 8000})
    serve.run(application(sys.argv[1]), blocking=True)
