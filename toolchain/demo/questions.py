"""Questions about a scene: ten kinds, each with one right answer, and a caption that names everything.

A digit is referred to by its cell ("the top left digit") or by a unique colour or value ("the red digit", "the seven"), so a
question never refers to two digits.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from vlmc.toolchain.demo.scenes import COLOURS, POSITIONS, WORDS, Scene

Asked: TypeAlias = tuple[str, str]
"""A question and its answer."""

CAPTION = "caption"
CAPTION_QUESTION = "describe the picture."


def ask(kind: str, scene: Scene, random: Random) -> Asked | None:
    """Draw a question of one kind about a scene; None if the scene allows none."""
    return _ASK[kind](scene, random)


def _caption(scene: Scene, _: Random) -> Asked:
    named = [f"a {scene.digit(i).colour} {WORDS[scene.digit(i).value]} {POSITIONS[i]}" for i in scene.present]
    return CAPTION_QUESTION, " and ".join(named)


def _read(scene: Scene, random: Random) -> Asked:
    empty = [cell for cell in range(4) if cell not in scene.present]
    if empty and random.random() < 0.15:
        return f"what digit is {POSITIONS[random.choice(empty)]}?", "none"
    cell = random.choice(scene.present)
    answer = WORDS[scene.digit(cell).value]
    if _by_colour(scene, cell) and random.random() < 0.5:
        return f"what is the {scene.digit(cell).colour} digit?", answer
    return f"what digit is {POSITIONS[cell]}?", answer


def _colour(scene: Scene, random: Random) -> Asked:
    cell = random.choice(scene.present)
    names = [f"the {POSITIONS[cell]} digit", *_by_value(scene, cell)]
    return f"what colour is {random.choice(names)}?", scene.digit(cell).colour


def _where(scene: Scene, random: Random) -> Asked | None:
    found = [(name, cell) for cell in scene.present for name in _by_colour(scene, cell) + _by_value(scene, cell)]
    if not found:
        return None
    name, cell = random.choice(found)
    return f"where is {name}?", POSITIONS[cell]


def _count(scene: Scene, random: Random) -> Asked:
    if random.random() < 0.15:
        return "how many digits are there?", WORDS[len(scene.present)]
    counted = Counter(scene.digit(cell).colour for cell in scene.present)
    colours_of = defaultdict(list)
    for colour in COLOURS:
        colours_of[counted[colour]].append(colour)
    count = random.choice(sorted(colours_of))
    return f"how many {random.choice(colours_of[count])} digits are there?", WORDS[count]


def _exists(scene: Scene, random: Random) -> Asked:
    there = {(scene.digit(cell).colour, scene.digit(cell).value) for cell in scene.present}
    if random.random() < 0.5:
        colour, value = random.choice(sorted(there))
        return f"is there a {colour} {WORDS[value]}?", "yes"
    mixed = {(colour, value) for colour, _ in there for _, value in there}
    free = {(colour, value) for colour in COLOURS for value in range(10)}
    pool = mixed - there if mixed - there and random.random() < 0.5 else free - there
    colour, value = random.choice(sorted(pool))
    return f"is there a {colour} {WORDS[value]}?", "no"


def _compare(scene: Scene, random: Random) -> Asked | None:
    first, second = random.sample(scene.present, 2)
    values = scene.digit(first).value, scene.digit(second).value
    if values[0] == values[1]:
        return None
    question = f"is {_name(scene, first, random)} larger than {_name(scene, second, random)}?"
    return question, "yes" if values[0] > values[1] else "no"


def _extreme(word: str, pick: Callable[[list[int]], int]) -> Callable[[Scene, Random], Asked]:
    def asked(scene: Scene, _: Random) -> Asked:
        return f"what is the {word} digit?", WORDS[pick([scene.digit(cell).value for cell in scene.present])]

    return asked


def _sum(scene: Scene, random: Random) -> Asked:
    first, second = random.sample(scene.present, 2)
    total = scene.digit(first).value + scene.digit(second).value
    return (
        f"what is the sum of {_name(scene, first, random)} and {_name(scene, second, random)}?",
        WORDS[total],
    )


def _parity(scene: Scene, random: Random) -> Asked:
    cell = random.choice(scene.present)
    return f"is {_name(scene, cell, random)} even or odd?", "odd" if scene.digit(cell).value % 2 else "even"


def _name(scene: Scene, cell: int, random: Random) -> str:
    """Refer to a digit without telling its value."""
    return random.choice([f"the {POSITIONS[cell]} digit", *_by_colour(scene, cell)])


def _by_colour(scene: Scene, cell: int) -> list[str]:
    colour = scene.digit(cell).colour
    alone = sum(scene.digit(other).colour == colour for other in scene.present) == 1
    return [f"the {colour} digit"] if alone else []


def _by_value(scene: Scene, cell: int) -> list[str]:
    value = scene.digit(cell).value
    alone = sum(scene.digit(other).value == value for other in scene.present) == 1
    return [f"the {WORDS[value]}"] if alone else []


_ASK: dict[str, Callable[[Scene, Random], Asked | None]] = {
    "read": _read,
    "colour": _colour,
    "where": _where,
    "count": _count,
    "exists": _exists,
    "compare": _compare,
    "largest": _extreme("largest", max),
    "smallest": _extreme("smallest", min),
    "sum": _sum,
    "parity": _parity,
    CAPTION: _caption,
}

KINDS = tuple(kind for kind in _ASK if kind != CAPTION)
"""The kinds of question in an evaluation; training adds `CAPTION`."""
