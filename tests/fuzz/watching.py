"""What a child notes of itself while vlmc works, by Python's audit events: connections, pickles, files outside, changes."""

import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.commands import Death

_NAMES_CHANGE = {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir"}
_PLACES_CHANGE = _NAMES_CHANGE | {"os.chmod", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_DEVICES = ("/dev/", "/proc/", "/sys/")


class Watch:
    """An audit hook. `ours` are the folders that the run may write to."""

    def __init__(self, ours: Sequence[Path], death: Death | None) -> None:
        self.ours = tuple(os.path.realpath(folder) for folder in ours)
        self.death = death
        self.changes = 0
        self.noted: dict[str, None] = {}
        self._busy = False

    def start(self) -> None:
        """Watch from now on; a hook cannot be taken off again."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            self._note(event, arguments)
        finally:
            self._busy = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NAMES_CHANGE:
            self.changes += 1
            if self.death is not None and self.changes == self.death.before:
                os.kill(os.getpid(), self.death.by)
        if event == "os.mkdir" and os.path.isdir(arguments[0]):
            return  # it is there, so nothing changes
        if event in _PLACES_CHANGE:
            for path in arguments[:2] if event in {"os.rename", "os.link"} else arguments[:1]:
                self._check_place(event, path)
        elif event == "open":
            self._opened(*arguments[:3])
        elif event in {"socket.connect", "socket.getaddrinfo"}:
            self._connects(event, arguments)

    def _opened(self, path: Any, mode: str | None, flags: int) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        if name.endswith(_PICKLES):
            self.noted[f"opened a pickle, {Path(name).name}"] = None
        if flags & _WRITES or (mode and set(mode) & set("wax+")):
            self._check_place("open", path)

    def _check_place(self, event: str, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        follows = event in {"open", "os.chmod", "os.truncate"}
        place = os.path.realpath(name) if follows else os.path.join(os.path.realpath(os.path.dirname(name)), "")
        if place.startswith(_DEVICES) or any(f"{place}/".startswith(f"{ours}/") for ours in self.ours):
            return
        self.noted[f"{event} outside its folder, {name[-80:]}"] = None

    def _connects(self, event: str, arguments: tuple[Any, ...]) -> None:
        address = arguments[1] if event == "socket.connect" else arguments[0]
        if isinstance(address, str) and (event == "socket.connect" or address in {"localhost", "127.0.0.1", "::1"}):
            return  # a socket of this machine
        self.noted["tries to connect"] = None
        if event == "socket.getaddrinfo":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
