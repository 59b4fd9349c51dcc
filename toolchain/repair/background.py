"""How background processes start and end: as forks of a server that has imported what they need, and used none of it.

A fork of the main process would copy locks that other threads hold, and CUDA's state; a fresh process would import torch
and transformers anew, and take the memory for them once more.
"""

import logging
import os
import signal
import warnings
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from threading import Thread


def context() -> ForkServerContext:
    """Return the context that starts processes; its server runs when this returns.

    Ctrl-C, which a terminal sends to all of them, reaches the main process alone: it ends the others.
    """
    found = get_context("forkserver")
    found.set_forkserver_preload(["vlmc.toolchain.repair.feeding", "transformers.processing_utils"])
    resource_tracker.ensure_running()  # its start lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    first = found.Process(
        target=os.getpid
    )  # to wait for the server's imports here, where Ctrl-C leaves nothing half started
    first.start()
    first.join()
    return found


def settle(number: int) -> None:
    """Prepare a background process: it says nothing, which is for the main process to do, and ends when that is killed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
