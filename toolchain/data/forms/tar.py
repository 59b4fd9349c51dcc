"""WebDataset: tar files in which the members a.jpg, a.json and a.txt are one sample. Only their offsets stay in memory.

Read with tarfile: `datasets` would copy a whole file into its cache before the first row, its streams have no random access,
and its errors do not name the member.
"""

import json
import re
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.forms.rows import Place, Rows
from vlmc.toolchain.data.sample import Stored

IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"))
"""Extensions of images; the column is called image, whatever the extension."""
KEY = "__key__"
_SEVERAL = re.compile(rf"(?:image|img)?_?\d+\.(?:{'|'.join(sorted(IMAGES))})")
"""Extensions of one of several images of a sample, in the order of the members: a.0.jpg, a.1.jpg."""


class Member(NamedTuple):
    """A file in a tar: its sample's key, its extension in lower case, the offset and the size of its content."""

    key: str
    ending: str
    offset: int
    size: int


class TarRows(Rows):
    """The samples of tar files, one file after the other."""

    def __init__(self, paths: Sequence[Path], limit: int | None) -> None:
        self._paths: list[Path] = []
        self._ends: list[int] = []  # samples up to the end of each file
        self._keys: list[str] = []
        self._endings: list[str] = []  # every extension; members refer to it by number
        self._members = array("q")  # (number of the extension, offset, size) of every member
        self._firsts = array("q", [0])  # the first member of each sample, then the number of members
        for path in paths:
            if limit is None or len(self) < limit:
                self._add(path, limit)
        self.columns = tuple(self.read(0, ())) if self._keys else ()

    def _add(self, path: Path, limit: int | None) -> None:
        for key, members in groupby(_members(path), key=lambda member: member.key):
            if limit is not None and len(self) >= limit:
                break
            for member in members:
                self._members.extend((self._number(member.ending), member.offset, member.size))
            self._keys.append(key)
            self._firsts.append(len(self._members) // 3)
        self._paths.append(path)
        self._ends.append(len(self))

    def _number(self, ending: str) -> int:
        if ending not in self._endings:
            self._endings.append(ending)
        return self._endings.index(ending)

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int, columns: Collection[str]) -> dict[str, Any]:
        path = self._path(index)
        found: dict[str, Any] = {KEY: self._keys[index]}
        several: list[TarMember] = []
        for part in range(self._firsts[index], self._firsts[index + 1]):
            number, offset, size = self._members[3 * part : 3 * part + 3]
            ending = self._endings[number]
            member = TarMember(path, f"{self._keys[index]}.{ending}", offset, size)
            if ending in IMAGES:
                found["image"] = member
            elif _SEVERAL.fullmatch(ending):
                several.append(member)
            elif ending == "json" or ending in columns or not columns:
                found |= _texts(member, ending)
        return found | ({"image": several} if several and "image" not in found else {})

    def place(self, index: int) -> Place:
        return Place(str(self._path(index)), f"sample {self._keys[index]}")

    def _path(self, index: int) -> Path:
        return self._paths[bisect_right(self._ends, index)]


class TarMember(Stored):
    """An image in a tar file."""

    def __init__(self, path: Path, name: str, offset: int, size: int) -> None:
        self._path, self._name, self._offset, self._size = path, name, offset, size

    def __str__(self) -> str:
        return f"{self._name} in {self._path}"

    def read(self) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            return stream.read(self._size)


def _texts(member: TarMember, ending: str) -> dict[str, Any]:
    """Return a member's columns: the keys of a .json, or the text itself, named after its extension."""
    try:
        text = member.read().decode("utf-8-sig")
        found = json.loads(text) if ending == "json" else {ending: text}
    except UnicodeDecodeError:
        return {ending: member}
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{member} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{member} is not a JSON object")
    return found


def _members(path: Path) -> Iterator[Member]:
    """Yield the files of a tar in order, without folders and hidden files."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
                folder, _, name = info.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if info.isfile() and stem:
                    yield Member(f"{folder}/{stem}".lstrip("/"), ending.casefold(), info.offset_data, info.size)
            _check_end(path, tar.offset)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read as a tar file: {error}; decompress it first if it is compressed") from None


def _check_end(path: Path, offset: int) -> None:
    """Raise InputError if the last member is not followed by the end of the tar: tarfile stops silently at damage."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if any(stream.read(512)):
            raise InputError(f"{path} is damaged at byte {offset}: create or download it again")
