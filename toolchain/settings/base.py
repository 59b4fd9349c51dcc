"""The base of all option groups: a field and its docstring make the flag, its help and the recipe's key."""

import inspect
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

RARE = "rare"
"""Marks a field that few users need: `--help` shows it last."""


def advanced(panel: str) -> str:
    """Return the name of the panel for a panel's rare options."""
    return f"Advanced: {panel.lower()}"


class Settings(BaseModel):
    """Base of all option groups: frozen; numbers must be finite, and unknown keys are errors.

    `panel` is the `--help` panel of the group's own options, except those marked `RARE`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    panel: ClassVar[str] = "Options"

    @classmethod
    def panel_of(cls, name: str) -> str:
        """Return the panel of an option: that of the class that defines it, or its advanced one."""
        owner = next(base for base in cls.__mro__ if issubclass(base, Settings) and name in inspect.get_annotations(base))
        return advanced(owner.panel) if RARE in cls.model_fields[name].metadata else owner.panel
