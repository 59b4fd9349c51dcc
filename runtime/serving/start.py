"""From artifacts to a server that runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from vlmc.runtime.model import ONNX
from vlmc.runtime.serving.application import Application
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.memory import return_large_blocks
from vlmc.runtime.serving.running import BACKLOG, Server, address, bind
from vlmc.runtime.serving.served import Served, opened
from vlmc.runtime.vision import KEPT


def serve(
    artifacts: Sequence[Path],
    *,
    host: str,
    port: int,
    limits: Limits,
    key: str | None = None,
    remote: bool = False,
    backend: str = ONNX,
    threads: int = 0,
    max_batch: int = 8,
    max_queue: int = 64,
    vision_bytes: int = KEPT,
    log: bool = False,
    tell: Callable[[str, Mapping[str, Served]], None],
) -> None:
    """Load artifacts, serve them until a signal comes, and answer what was asked until then.

    Each model answers `max_batch` questions at once, `max_queue` more wait, and it keeps `vision_bytes` of the features of
    images. `tell` is called with the server's URL and
    the models once connections are taken; `log` writes a line for each request to stderr.

    Raises:
        InputError: an artifact cannot be served, or the port is taken.
        EnvironmentLacks: a package or provider is missing.
    """
    return_large_blocks()
    seconds, places = limits.seconds, (max_batch + max_queue) * len(artifacts)
    with (
        bind(host, port, seconds) as bound,
        opened(
            artifacts,
            backend=backend,
            threads=threads,
            max_batch=max_batch,
            max_queue=max_queue,
            vision_bytes=vision_bytes,
        ) as models,
        closing(Application(models, replace(limits, requests=places), key=key, remote=remote)) as application,
    ):
        bound.listen(BACKLOG)
        tell(address(bound), models)
        Server(application, seconds=seconds, log=log).run(sockets=[bound])
