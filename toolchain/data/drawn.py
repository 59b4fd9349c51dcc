"""The data sets that vlmc draws itself, by name, and the models that were trained on them."""

from typing import TYPE_CHECKING, TypeVar

from vlmc.toolchain.settings import DataSettings

if TYPE_CHECKING:
    from vlmc.toolchain.demo.drawn import DrawnSet
    from vlmc.toolchain.models import Checkpoint

DRAWN = ("demo", "smol")

Group = TypeVar("Group", bound=DataSettings)


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


def with_usual_data(options: Group, model: "Checkpoint") -> Group:
    """Return the options; where they name no data, and the model is `smol` or was pruned from it, with its own."""
    name = model.name if model.artifact is None else model.artifact.manifest.origin.model
    if "data" in options.model_fields_set or name != "smol":
        return options
    return options.model_copy(update={"data": name})
