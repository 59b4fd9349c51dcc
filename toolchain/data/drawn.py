"""The data sets that vlmc draws itself, by name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmc.toolchain.demo.drawn import DrawnSet

DRAWN = ("demo", "smol")


def drawn_set(name: str) -> "DrawnSet":
    """Return one of them; what it draws with is imported only now.

    Raises:
        LookupError: there is none of that name.
    """
    if name == "smol":
        from vlmc.toolchain.smol.dataset import SMOL

        return SMOL
    if name == "demo":
        from vlmc.toolchain.demo.dataset import DEMO

        return DEMO
    raise LookupError(name)
