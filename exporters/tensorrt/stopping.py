"""Ctrl-C in a build: the builder asks a progress monitor between its steps, and stops there."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stoppable(trt: Any, config: Any) -> Iterator[None]:
    """Build inside with this configuration: Ctrl-C ends the build after its current step.

    An exception must not leave a callback of the builder, which is C++: so the signal is only noted there. In another
    thread than the main one, which gets no signals, nothing is changed.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the builder has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = threading.Event()
    config.progress_monitor = monitor = _monitor(trt, pressed)
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        config.progress_monitor = None
        del monitor
    if pressed.is_set():
        raise KeyboardInterrupt


def _monitor(trt: Any, pressed: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Says between two steps whether to go on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Nothing is shown."""

        def step_complete(self, name: str, step: int) -> bool:
            return not pressed.is_set()

        def phase_finish(self, name: str) -> None:
            """Nothing is shown."""

    return Monitor()
