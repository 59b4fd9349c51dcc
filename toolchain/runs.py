"""The folder of a run that can be stopped and gone on with: it says what decides the run's result."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact.writing import write_text
from vlmc.runtime.errors import InputError

_IDENTITY = "identity.json"


class RunFolder:
    """The folder of one run; `identity` is all that decides its result, as JSON values.

    With `resume` a run of the same identity goes on; without, what the folder holds is dropped.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path, self.identity, self.resume = path, dict(identity), resume

    def open(self) -> None:
        """Make the folder ready.

        Raises:
            InputError: the folder holds another run.
        """
        if self.resume and (self.path / _IDENTITY).is_file():
            self._check_identity()
            return
        self.remove()
        self.path.mkdir(parents=True)
        write_text(self.path / _IDENTITY, json.dumps(self.identity, indent=2, sort_keys=True) + "\n")

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _check_identity(self) -> None:
        try:
            found = dict(json.loads((self.path / _IDENTITY).read_text(encoding="utf-8")))
        except ValueError:
            found = {}
        for key in sorted(found.keys() | self.identity.keys()):
            was, now = found.get(key), self.identity.get(key)
            if was != now:
                raise InputError(
                    f"{self.path} holds another run: its {key} was {was!r}, now it is {now!r}; "
                    "repeat that command, or leave --resume out to start anew"
                )
