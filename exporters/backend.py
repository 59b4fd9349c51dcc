"""Backend: what the command line, doctor, inspect and the tables need to know of a backend, without importing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

TWINS = {"dense_twin": "", "lora_twin": ""}
"""Options of every backend that writes graphs beside those of the model, to compare them with."""


@dataclass(frozen=True)
class Backend:
    """A backend's descriptor. Code is named as `module:name` and imported on use, because most of it needs torch.

    `name` is also the artifact's subfolder, `title` what tables call its files. `packages` maps the PyPI packages that it
    needs to what they are for; one of `alternatives` is enough, and so is one of `runtimes`, by which its graphs are
    checked. `options` maps the options of `vlmc export` that it takes to their defaults. `suffix` is that of its files.
    `session` runs such a file, `frugal` or not as `OnnxSession` does, and `verifier(path, pattern)` checks the sparsity of
    one; None: vlmc cannot. `report` is the file for what the exporter returns, and `tables(report)` shows that as tables.
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
    runtimes: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None
    verifier: str | None = None

    @property
    def remedy(self) -> str:
        """The command that installs what it needs."""
        return f"pip install 'vlmc[{self.extra}]'"


@dataclass(frozen=True)
class Table:
    """A table of a report: a header, rows of cells, and notes below."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()


def resolve(name: str) -> Any:
    """Import what a descriptor names as `module:name`."""
    module, _, inside = name.partition(":")
    return getattr(import_module(module), inside)
