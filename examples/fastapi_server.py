"""A model in FastAPI: `python examples/fastapi_server.py artifact`, needs `pip install 'vlmc[cpu,serve]'`.
curl --data-binary @image.png 'http://127.0.0.1:8000/ask?question=what+is+shown'"""

import sys
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from vlmc.runtime import Batcher, Busy, InputError, Message, Options, load


def application(artifact: str) -> FastAPI:
    """Return an application that loads the artifact when it starts and closes it when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with load(artifact) as model, Batcher(model, max_batch=8) as app.state.batcher:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/ask")
    async def ask(question: str, request: Request) -> dict[str, str | int]:
        turn = Message("user", [await request.body(), question])
        try:
            pending = await to_thread(app.state.batcher.ask, [turn], Options(max_new_tokens=64))
        except (InputError, Busy) as error:
            raise HTTPException(429 if isinstance(error, Busy) else 422, str(error)) from None
        answer = await pending.wait()
        return {"answer": answer.text, "tokens": len(answer.tokens)}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
