"""A build that is watched: the builder tells a progress monitor of its steps, and asks it whether to go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def watched(trt: Any, config: Any, say: Callable[[str], None]) -> Iterator[None]:
    """Build inside with this configuration: `say` hears of each step, and Ctrl-C ends the build after its current one.

    An exception must not leave a callback of the builder, which is C++: so the signal is only noted there. Signals reach
    the main thread alone, so in another one nothing stops the build.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the builder has ended.
    """
    pressed = threading.Event()
    config.progress_monitor = monitor = _monitor(trt, pressed, say)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set()) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        config.progress_monitor = None
        del monitor
    if pressed.is_set():
        raise KeyboardInterrupt


def _monitor(trt: Any, pressed: threading.Event, say: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Hears of phases inside phases, each of some steps, and says between two steps whether to go on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            say(f"{name.lower()} {step + 1}/{self._steps.get(name, step + 1)}")
            return not pressed.is_set()

        def phase_finish(self, name: str) -> None:
            """The phase around it goes on, and says so at its next step."""

    return Monitor()
