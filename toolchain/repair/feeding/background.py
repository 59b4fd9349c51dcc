"""How background processes start and end: as forks of a server that has imported what they need, and used none of it.

A fork of the main process would copy locks that other threads hold, and CUDA's state; a fresh process would import torch
and transformers anew, and take the memory for them once more.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from threading import Thread, current_thread, main_thread


def context() -> ForkServerContext:
    """Return the context that starts processes; its server runs when this returns.

    Ctrl-C, which a terminal sends to all of them, reaches the main process alone: it ends the others.
    """
    found = get_context("forkserver")
    found.set_forkserver_preload(["vlmc.toolchain.repair.feeding.ahead", "transformers.processing_utils"])
    resource_tracker.ensure_running()  # its start lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    first = found.Process(target=os.getpid)  # a wait for the server's imports, in which Ctrl-C does no harm
    first.start()
    first.join()
    return found


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until this ends: torch leaves processes that are half started, or half ended, alone."""
    if current_thread() is not main_thread():  # where no signal is handled
        yield
        return
    seen: list[int] = []
    before = {number: signal.signal(number, lambda it, frame: seen.append(it)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in seen:
        signal.raise_signal(late)


def settle(number: int) -> None:
    """Prepare a background process: what there is to say, the main process says; and it ends when that is killed."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
