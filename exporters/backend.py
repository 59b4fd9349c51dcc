"""Backend: what the command line, doctor, inspect and the tables must know of a backend, without loading it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Backend:
    """A backend's descriptor; what it can do is named as `module:name` and imported on use, for most of it needs torch.

    `name` is also the artifact's subfolder, `title` what a table calls its files. `packages` are what it needs of PyPI and
    what for; of `alternatives` one is enough. `options` maps those options of `vlmc export` that it honours to their
    defaults. `suffix` is what its files end in. `session` runs such a file, and `verifier(path, pattern)` reads the
    sparsity of one; None: nobody here can. `report` is the file that holds what the exporter returns, and `tables(report)`
    gives it as tables.
    """

    name: str
    title: str
    extra: str
    exporter: str
    suffix: str
    report: str
    tables: str
    packages: Mapping[str, str] = field(default_factory=dict)
    alternatives: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None
    verifier: str | None = None

    @property
    def remedy(self) -> str:
        """The command that installs what it needs."""
        return f"pip install 'vlmc[{self.extra}]'"


@dataclass(frozen=True)
class Table:
    """A part of a report for people: a header, rows of cells, and notes below."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()


def resolve(name: str) -> Any:
    """Import what a descriptor names as `module:name`."""
    module, _, inside = name.partition(":")
    return getattr(import_module(module), inside)
