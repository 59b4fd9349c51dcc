"""Models and data sets that are known by name, such as `demo`: a source is one folder, and one line here."""

from importlib import import_module
from typing import TypeVar

from vlmc.toolchain.builtin.base import BuiltIn, NamedData, NamedModel
from vlmc.toolchain.settings import DataSettings

__all__ = ["SOURCES", "BuiltIn", "NamedData", "NamedModel", "data_sets", "models", "with_usual_data"]

SOURCES = ("vlmc.toolchain.demo", "vlmc.toolchain.smol")
"""The package of each source; its `SOURCE` lists what it offers. Nothing else imports such a package."""

Options = TypeVar("Options", bound=DataSettings)


def models() -> dict[str, NamedModel]:
    """Return the built-in models by their names."""
    return {model.name: model for source in _sources() for model in source.models}


def data_sets() -> dict[str, NamedData]:
    """Return the built-in data sets by their names."""
    return {data.name: data for source in _sources() for data in source.data}


def with_usual_data(options: Options, model: str) -> Options:
    """Return the options with the data set of a built-in model, unless they name one."""
    found = models().get(model)
    if found is None or "data" in options.model_fields_set:
        return options
    return options.model_copy(update={"data": found.data})


def _sources() -> tuple[BuiltIn, ...]:
    return tuple(import_module(package).SOURCE for package in SOURCES)
