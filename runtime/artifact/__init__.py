"""The artifact: one folder that every step reads and writes, and its manifest. Specified in docs/format.md."""

from vlmc.runtime.artifact.digest import digest_of_files, sha256_file
from vlmc.runtime.artifact.folder import CARD, Artifact
from vlmc.runtime.artifact.manifest import Layer, Manifest, Origin, Part, State, Step
from vlmc.runtime.artifact.writing import Draft, extend, put_texts, write

__all__ = [
    "CARD",
    "Artifact",
    "Draft",
    "Layer",
    "Manifest",
    "Origin",
    "Part",
    "State",
    "Step",
    "digest_of_files",
    "extend",
    "put_texts",
    "sha256_file",
    "write",
]
