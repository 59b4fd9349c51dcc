"""The manifest: what an artifact holds, where it came from, and what it promises."""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vlmc.runtime.sparsity import SparsityPattern

SCHEMA_VERSION: Final = 2

State = Literal["pruned", "adapted", "merged"]
"""The furthest step that an artifact has gone through; `adapted`: an adapter waits to be merged."""


class Part(StrEnum):
    """Where in a vision-language model a layer sits."""

    VISION = "vision"
    INTERFACE = "interface"
    LANGUAGE = "language"


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"path {path!r} must be relative and stay inside the artifact")
    return path


def _pattern(text: str) -> str:
    return str(SparsityPattern.parse(text))


RelativePath = Annotated[str, AfterValidator(_relative)]
PatternText = Annotated[str, AfterValidator(_pattern)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """Size in bytes and SHA-256 of one file."""

    size: int = Field(ge=0)
    sha256: Sha256


class Layer(_Strict):
    """A pruned layer: its module's name is the key; `tensor` is its weight's name in the safetensors files."""

    tensor: str
    pattern: PatternText
    part: Part

    @property
    def sparsity(self) -> SparsityPattern:
        return SparsityPattern.parse(self.pattern)


class Origin(_Strict):
    """The dense model that the artifact was made from: its name as the user gave it, and the digest of its files."""

    model: str
    digest: Sha256


class Step(_Strict):
    """One entry of the history: a stage, its whole configuration, the digest that it started from, what it measured."""

    stage: str
    config: dict[str, Any]
    parent: Sha256
    measures: dict[str, Any] = {}
    versions: dict[str, str] = {}


class Manifest(_Strict):
    """`manifest.json`; see docs/format.md.

    `state` is the last step done: `pruned`, `adapted` (with an adapter that is not merged yet) or `merged`.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    family: str
    state: State
    origin: Origin
    layers: dict[str, Layer]
    history: tuple[Step, ...]
    files: dict[RelativePath, File] = {}

    def to_json(self) -> str:
        """Return the text of `manifest.json`: the fields, then a checksum of them; the same for equal content."""
        content = self.model_dump(mode="json")
        return json.dumps({**content, "checksum": checksum(content)}, indent=2, ensure_ascii=False) + "\n"


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 over a manifest's fields, without the checksum itself: edits by hand are found."""
    fields = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
