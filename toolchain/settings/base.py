"""The base of all option groups: a field and its docstring make the flag, its help and the recipe's key."""

import inspect
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

RARE = "rare"
"""Marks a field that few need: `--help` shows it last."""


def advanced(panel: str) -> str:
    """Return the heading of a panel's rare options."""
    return f"Advanced: {panel.lower()}"


class Settings(BaseModel):
    """Base of all option groups: frozen, numbers are finite, and a key that is not known is an error.

    `panel` is the heading of `--help` under which the group's own options stand, but for those marked `RARE`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    panel: ClassVar[str] = "Options"

    @classmethod
    def panel_of(cls, name: str) -> str:
        """Return the heading of an option: that of the class which defines it, or `Advanced` with it."""
        owner = next(base for base in cls.__mro__ if issubclass(base, Settings) and name in inspect.get_annotations(base))
        return advanced(owner.panel) if RARE in cls.model_fields[name].metadata else owner.panel
