"""Questions about a scene in whole sentences: seven kinds, each with one right answer.

A thing is referred to by its name only where no other thing of the scene has that name, a digit by its corner, or by
its value or colour where it is the only one of it, so a question never points at two things.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

from vlmc.toolchain.demo.glyphs import Split
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.scenes import COLOURS, POSITIONS, WORDS, Digit, Drawn, Scene
from vlmc.toolchain.smol.wordings import WORDINGS

Asked: TypeAlias = tuple[str, str]
"""A question and its answer."""

_Slots: TypeAlias = tuple[Mapping[str, str], str]
"""What fills a wording, and the answer."""

KINDS = tuple(WORDINGS)
_ANYTHING = "a thing"


def ask(kind: str, scene: Scene, random: Random, split: Split) -> Asked | None:
    """Draw a question of one kind about a scene in a wording of a split; None when the scene offers none."""
    drawn = _ASK[kind](scene, random)
    if drawn is None:
        return None
    slots, answer = drawn
    wording = random.choice(random.choice(WORDINGS[kind].of(split)))
    return wording.format_map({**slots, "Verb": slots.get("verb", "").capitalize()}), answer


def _name(scene: Scene, random: Random) -> _Slots:
    empty = [cell for cell, thing in enumerate(scene.cells) if thing is None]
    full = [cell for cell, _ in scene.things()]
    cell = random.choice(empty if empty and random.random() < 0.12 else full)
    thing = scene.cells[cell]
    return {"place": POSITIONS[cell]}, "nothing" if thing is None else thing.phrase


def _sort(scene: Scene, random: Random) -> _Slots | None:
    known = [(cell, sort) for cell, thing in scene.things() if (sort := _sort_of(thing)) != _ANYTHING]
    if not known:
        return None
    cell, sort = random.choice(known)
    return {"place": POSITIONS[cell]}, sort


def _colour(scene: Scene, random: Random) -> _Slots | None:
    digits = scene.digits()
    if not digits:
        return None
    cell, digit = random.choice(digits)
    names = [f"the digit at the {POSITIONS[cell]}"]
    if len(digits) == 1:
        names.append("the digit")
    if sum(other.value == digit.value for _, other in digits) == 1:
        names.append(f"the {WORDS[digit.value]}")
    return {"thing": random.choice(names)}, digit.colour


def _where(scene: Scene, random: Random) -> _Slots | None:
    found = _pointed(scene)
    if not found:
        return None
    cell, name, verb = random.choice(found)
    return {"thing": f"the {name}", "verb": verb}, POSITIONS[cell]


def totals(scene: Scene) -> dict[str, int]:
    """Return how many there are of everything that can be counted."""
    colours = Counter(digit.colour for _, digit in scene.digits())
    return {
        "thing": len(list(scene.things())),
        "digit": len(scene.digits()),
        "animal": sum(_sort_of(thing) == "an animal" for _, thing in scene.things()),
        **{f"{colour} digit": colours[colour] for colour in COLOURS},
    }


def _count(scene: Scene, random: Random) -> _Slots:
    here = {digit.colour for _, digit in scene.digits()}
    kind = random.choice(["thing", "digit", "digit", "animal", "animal", "colour", "colour"])
    if kind == "colour":
        pool = sorted(here) if here and random.random() < 0.7 else list(COLOURS)
        kind = f"{random.choice(pool)} digit"
    return {"many": f"{kind}s"}, WORDS[totals(scene)[kind]]


def _exists(scene: Scene, random: Random) -> _Slots:
    here = [thing for _, thing in scene.things()]
    names = {thing.name for thing in here}
    if random.random() < 0.5:
        thing = random.choice(here)
        return {"phrase": thing.phrase, "verb": thing.verb}, "yes"
    if random.random() < 0.35:
        free = [name for colour in COLOURS for word in WORDS[:10] if (name := f"{colour} {word}") not in names]
        name = random.choice(free)
        return {"phrase": f"a {name}", "verb": "is"}, "no"
    emoji = random.choice([emoji for emoji in EMOJI if emoji.name not in names])
    verb = "are" if emoji.several else "is"
    return {"phrase": emoji.phrase, "verb": verb}, "no"


def _caption(scene: Scene, _: Random) -> _Slots:
    *others, last = [f"{thing.phrase} at the {POSITIONS[cell]}" for cell, thing in scene.things()]
    return {}, f"The image shows {', '.join(others)} and {last}."


def _sort_of(thing: Drawn | Digit) -> str:
    return EMOJI[thing.number].sort if isinstance(thing, Drawn) else "a digit"


def _pointed(scene: Scene) -> list[tuple[int, str, str]]:
    """Return every thing that can be referred to by its name alone: its cell, its name and its verb."""
    things = list(scene.things())
    names = Counter(thing.name for _, thing in things)
    values = Counter(digit.value for _, digit in scene.digits())
    found = [(cell, thing.name, thing.verb) for cell, thing in things if names[thing.name] == 1]
    return found + [(cell, WORDS[digit.value], "is") for cell, digit in scene.digits() if values[digit.value] == 1]


_ASK: dict[str, Callable[[Scene, Random], _Slots | None]] = {
    "name": _name,
    "sort": _sort,
    "colour": _colour,
    "where": _where,
    "count": _count,
    "exists": _exists,
    "caption": _caption,
}
