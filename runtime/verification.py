"""Whether the files that answer questions are those that the manifest lists, found out in the background."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import final

from vlmc.runtime.artifact import Artifact, sha256_file
from vlmc.runtime.artifact.folder import model_files
from vlmc.runtime.errors import InputError

_WEIGHTS = ".safetensors"  # the graphs have their own
_LARGE = 8 << 20  # bytes; hashing fewer takes no longer than looking up whether that was done before


def read_files(artifact: Artifact, backend: str) -> list[str]:
    """Return the files of an artifact that the runtime reads: a backend's own, tokenizer, processor, configuration."""
    files = artifact.manifest.files
    beside = [path for path in model_files(files) if PurePosixPath(path).suffix != _WEIGHTS]
    return [*(path for path in files if str(PurePosixPath(path).parent) == backend), *beside]  # no folder of a twin


@final
class Verification:
    """Files of an artifact that are being hashed, in a thread; what did not change since it was hashed last is not read."""

    def __init__(self, artifact: Artifact, paths: list[str]) -> None:
        self._artifact, self._paths = artifact, paths
        self._wrong: str | None = None
        self._thread = Thread(target=self._run, name="vlmc-verify", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all files are hashed.

        Raises:
            InputError: a file is not the one that the manifest lists.
        """
        self._thread.join()
        if self._wrong is not None:
            raise InputError(self._wrong)

    def _run(self) -> None:
        try:
            small = [path for path in self._paths if self._artifact.manifest.files[path].size < _LARGE]
            self._compare(small, sha256_file)
            if large := [path for path in self._paths if path not in small]:
                from vlmc.runtime.artifact.file_digests import FileDigests  # SQLite takes longer than a small file

                with FileDigests() as digests:
                    self._compare(large, digests.of)
        except Exception as error:  # a thread's error reaches nobody by itself
            self._wrong = f"the files of {self._artifact.root} cannot be verified: {' '.join(str(error).split())[:300]}"

    def _compare(self, paths: list[str], hashed: Callable[[Path], str]) -> None:
        for path in self._artifact.differing(paths, hashed):
            self._wrong = self._wrong or self._artifact.difference(path)
            return
