"""What a model is on its way through the chain, and the verb that takes it from one state to the next."""

from collections.abc import Sequence
from typing import Literal

from vlmc.runtime.artifact import State
from vlmc.toolchain.models.saved import SavedModel

ModelState = Literal["dense"] | State

_CHAIN: tuple[ModelState, ...] = ("dense", "pruned", "adapted", "merged")
_MAKERS: dict[ModelState, str] = {"pruned": "prune", "adapted": "repair", "merged": "merge"}
_SAID: dict[ModelState, str] = {"adapted": "repaired, but its adapter is not merged"}
_WANTED: dict[ModelState, str] = {
    "dense": "a dense model",
    "pruned": "a pruned artifact",
    "adapted": "a repaired artifact",
    "merged": "a merged artifact",
}


def state_of(source: SavedModel) -> ModelState:
    """Return the state of a model on disk: `dense` where it is not an artifact."""
    return "dense" if source.artifact is None else source.artifact.manifest.state


def refusal(name: str, state: ModelState, verb: str, accepts: Sequence[ModelState]) -> str:
    """Return the message for a model that a verb does not accept, with the command that helps where there is one."""
    place = _CHAIN.index(state)
    wanted = f"{verb} {' or '.join(_WANTED[one] for one in accepts)}"
    if place > max(map(_CHAIN.index, accepts)):
        return f"{name} is already {state}: {wanted}"
    following = _CHAIN[place + 1]
    maker = f"{_MAKERS[following]} {name}" if following in accepts else _MAKERS[accepts[0]]
    return f"{name} is {_SAID.get(state, state)}: {wanted}, as 'vlmc {maker}' writes it"
