"""Model: a loaded artifact that answers questions about images; text in, text out."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from threading import Event
from time import perf_counter
from types import TracebackType
from typing import Literal, Self, Unpack, final

import numpy as np

from vlmc.runtime import processing
from vlmc.runtime.answers import Answer, whole
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.asking import Asked, Asking, Images
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.engine import Engine, State
from vlmc.runtime.errors import InputError
from vlmc.runtime.messages import Message
from vlmc.runtime.options import OptionKeywords, Options
from vlmc.runtime.processing import Processing, Request
from vlmc.runtime.reply import Reply
from vlmc.runtime.sessions import CPU, SESSIONS, Array, Session
from vlmc.runtime.text import Text
from vlmc.runtime.verification import Verification, read_files
from vlmc.runtime.vision import KEPT, Remembered

ONNX = "onnx"

Verify = bool | Literal["size"]
"""What is compared with the manifest before the first answer: True, the SHA-256 of what is read; `"size"`, sizes."""


def load(
    path: Path | str,
    *,
    backend: str = ONNX,
    providers: str | Sequence[str] = CPU,
    threads: int = 0,
    verify: Verify = True,
    vision_bytes: int = KEPT,
) -> "Model":
    """Load an artifact's graphs of a backend; `threads` is the number of CPU threads, 0 for one per core.

    `providers` are ONNX Runtime's: `cpu`, `cuda`, `tensorrt`, `openvino`, or its own names, one or several; the first has to
    run a part of every graph, the others what it cannot. `backend="tensorrt"` runs engines of TensorRT or TensorRT-RTX that
    were built for the GPU at hand (docs/tensorrt.md).
    The features of the images that were seen last are kept, up to `vision_bytes`: a conversation's next turn finds them.

    The files are hashed while the graphs are loaded, those that did not change since they were hashed last are not; the
    first question waits until all are, and is refused if one differs; engines are code, and wait before they are opened.
    `verify="size"` compares sizes only, False nothing.

    Raises:
        InputError: there is no artifact, it is damaged, it has no such graphs, or the runtime cannot run such a model.
        EnvironmentLacks: ONNX Runtime lacks an execution provider, or does not use it.
    """
    if backend not in SESSIONS:
        raise InputError(f"the runtime cannot run {backend} graphs: give one of {', '.join(SESSIONS)}")
    artifact, suffix = Artifact.open(path, sizes=verify is not False), SESSIONS[backend].suffix
    deployment = artifact.deployment(backend)
    graphs = () if deployment is None else deployment.graphs.names
    files = [path for path in artifact.manifest.files if path.endswith(suffix)]  # a GPU may stand before the suffix
    if deployment is None or not all(any(path.startswith(f"{backend}/{name}.") for path in files) for name in graphs):
        raise InputError(f"{path} has no graphs for {backend} yet: run 'vlmc export {path} --backend {backend}'")
    verified = Verification(artifact, read_files(artifact, backend)) if verify is True else None
    if verified is not None and SESSIONS[backend].code:
        verified.wait()
    folder = artifact.root / backend
    return Model.from_graphs(
        artifact.root,
        deployment,
        folder,
        providers,
        threads,
        backend=backend,
        verified=verified,
        vision_bytes=vision_bytes,
    )


@final
class Model:
    """A vision-language model in its graphs. It keeps no state between calls: several threads may share it."""

    def __init__(
        self,
        root: Path,
        deployment: Deployment,
        process: Processing,
        engine: Engine,
        verified: Verification | None = None,
    ) -> None:
        self.deployment, self.engine, self.text = deployment, engine, Text(root)
        self._asking = Asking(root, deployment, self.text, process)
        self._verified = verified

    @classmethod
    def from_graphs(
        cls,
        root: Path,
        deployment: Deployment,
        graphs: Path,
        providers: str | Sequence[str] = CPU,
        threads: int = 0,
        *,
        backend: str = ONNX,
        verified: Verification | None = None,
        vision_bytes: int = KEPT,
    ) -> "Model":
        """Load graphs from any folder; `root` holds the tokenizer and, where one is used, the processor.

        The first question waits until the files are `verified`.
        """
        runs = SESSIONS[backend]
        sessions = {
            name: runs.opens(graphs / f"{name}{runs.suffix}", providers, threads) for name in deployment.graphs.names
        }
        return cls.from_sessions(root, deployment, sessions, verified, vision_bytes)

    @classmethod
    def from_sessions(
        cls,
        root: Path,
        deployment: Deployment,
        sessions: Mapping[str, Session],
        verified: Verification | None = None,
        vision_bytes: int = KEPT,
    ) -> "Model":
        """Use graphs that are already loaded, by the names that the deployment gives them."""
        vision = deployment.graphs.vision
        remembered = {**sessions, vision: Remembered(sessions[vision], deployment.vision, vision_bytes)}
        return cls(root, deployment, processing.find(root, deployment), Engine(deployment, remembered), verified)

    def generate(self, image: Images, prompt: str, *, raw: bool = False, **options: Unpack[OptionKeywords]) -> Answer:
        """Answer a question about an image, or about several.

        The prompt is put into the model's own template; with `raw` it is the whole input, with a slot for each image.
        `options` are the fields of `Options`.

        Raises:
            InputError: an image cannot be read, there are too many, the prompt is empty or too long, an option is out
                of range, or a file of the artifact is not the one that its manifest lists.
            Closed: the model is closed, also while it answers.
        """
        return whole(self.stream(image, prompt, raw=raw, **options))

    def stream(
        self, image: Images, prompt: str, *, raw: bool = False, **options: Unpack[OptionKeywords]
    ) -> Generator[str, None, Answer]:
        """Yield the answer of `generate` piece by piece while it is generated, and return it whole.

        Raises:
            InputError: as `generate`, before the first piece.
            Closed: as `generate`.
        """
        began, chosen = perf_counter(), Options.of(**options)
        return self._answer(self._asking.question(image, prompt, raw=raw), chosen, began)

    def chat(self, messages: Sequence[Message], **options: Unpack[OptionKeywords]) -> Answer:
        """Answer the last turn of a conversation, which is put into the model's own chat template.

        Raises:
            InputError: as `generate`, or the conversation does not fit the model's template.
            Closed: as `generate`.
        """
        return whole(self.stream_chat(messages, **options))

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[OptionKeywords]) -> Generator[str, None, Answer]:
        """Yield the answer of `chat` piece by piece while it is generated, and return it whole.

        Raises:
            InputError: as `chat`, before the first piece.
            Closed: as `generate`.
        """
        began, chosen = perf_counter(), Options.of(**options)
        return self._answer(self._asking.conversation(messages), chosen, began)

    async def agenerate(self, image: Images, prompt: str, *, raw: bool = False, **options: Unpack[OptionKeywords]) -> Answer:
        """Do as `generate` in a thread; a task that is cancelled stops it at the next token.

        Raises:
            InputError, Closed: as `generate`.
        """
        given_up = Event()

        def run() -> Answer:
            return whole(self.stream(image, prompt, raw=raw, **options), given_up)

        try:
            return await asyncio.to_thread(run)
        finally:
            given_up.set()

    def prepare(self, asked: Request | Sequence[Message], options: Options) -> Asked:
        """Return a question in arrays, for who runs the engine himself; it waits until the artifact is verified.

        Raises:
            InputError: as `chat`.
        """
        request = asked if isinstance(asked, Request) else self._asking.conversation(asked)
        prepared = self._asking.prepare(request, options)
        if self._verified is not None:
            self._verified.wait()
        return prepared

    def close(self) -> None:
        """Free the graphs; the model cannot answer any more."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _answer(self, request: Request, options: Options, began: float) -> Generator[str, None, Answer]:
        """Return the pieces of an answer. The prompt is run now, and a chosen token when the next one is asked for."""
        asked = self.prepare(request, options)
        logits_BV, state = self.engine.prefill(asked.batch)
        return self._pieces(Reply(asked, self.text, self.deployment.stop_ids, began), logits_BV, state)

    def _pieces(self, reply: Reply, logits_BV: Array, state: State) -> Generator[str, None, Answer]:
        """Yield the text of the tokens as soon as no later token can change it; return the whole answer."""
        while True:
            if piece := reply.take(logits_BV[0]):
                yield piece
            if reply.finish is not None:
                return reply.answer()
            logits_BV, state = self.engine.step(np.array([reply.token]), state)
