"""The folder of a run that can be resumed: it says what decides the run's result."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmc.runtime.artifact.owned import OwnFolder
from vlmc.runtime.errors import InputError
from vlmc.toolchain.settings import SAYS_WHICH_DATA

_LONG = 40  # characters of a value in a message
_RESUMED = "repeat that command, or leave --resume out to start over"


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first difference of two identities, None where they are the same."""
    before, after = dict(_flat(was)), dict(_flat(now))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"its {key} was {_short(before.get(key))}, now it is {_short(after.get(key))}"
    return None


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide a result beside the data's digests: not those that say where the data is."""
    return {name: value for name, value in settings.items() if name not in SAYS_WHICH_DATA}


class RunFolder:
    """The folder of one run; `identity` is all that decides its result, as JSON values.

    With `resume` a run of the same identity is resumed; without, the folder is emptied. `remedy` is what the user can do
    about a folder of another run. A folder that vlmc did not make is never touched.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool = False, remedy: str = _RESUMED) -> None:
        self.path, self.identity, self.resume, self.remedy = path, dict(identity), resume, remedy
        self._own = OwnFolder(path, self.identity)

    def open(self) -> None:
        """Prepare the folder.

        Raises:
            InputError: the folder holds another run, or is not vlmc's.
        """
        found = self._own.found()
        if not self.resume or found is None:
            self._own.make()
        elif differs := difference(found, self.identity):
            raise InputError(f"{self.path} holds another run: {differs}; {self.remedy}")

    def is_resumable(self) -> bool:
        """Whether the folder holds a run of this identity."""
        found = self._own.found()
        return found is not None and difference(found, self.identity) is None

    def is_going(self) -> bool:
        """Whether the folder was being deleted when that was stopped."""
        return self._own.is_going()

    def remove(self) -> None:
        """Delete the folder.

        Raises:
            InputError: it is not vlmc's.
        """
        self._own.remove()


def _flat(identity: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all values with their keys, those of a mapping inside as `outer.inner`."""
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", one) for inner, one in _flat(value))
        else:
            yield key, value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
