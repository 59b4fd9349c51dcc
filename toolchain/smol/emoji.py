"""The emoji that scenes show: their names, what kind of thing each is, and their images, read from one atlas.

Shapes: N emoji, H x W pixels, C = 4 channels (red, green, blue, opacity).
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

ATLAS = Path(__file__).parent / "emoji.webp"
"""Every emoji once, in rows, in the order of `EMOJI`; `python -m vlmc.toolchain.smol.atlas` renders it."""

TILE, COLUMNS = 40, 16
"""Side of an emoji in the atlas in pixels, and how many stand in a row."""

_SORTS = {
    "an animal": "🐶🐱🐭🐰🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐧🦉🦆🐴🦄🐝🦋🐌🐞🐢🐍🦎🐙🦀🐠🐬🐳🐘🦒🦓🐪🐑🦔🦜🦩🦇🕷",
    "food": "🍎🍌🍇🍓🍉🍊🍋🍍🍒🥝🍅🥑🥕🌽🥦🍞🥐🧀🥚🍔🍟🍕🌮🍩🍪🎂🍭🍿🍦",
    "a plant": "🌻🌹🌷🌵🌴🌲🍁🍀",
    "a vehicle": "🚗🚕🚌🚑🚜🚲🚂✈🚀🚁⛵🚢",
    "a musical instrument": "🎸🎻🎺🥁🎹",
    "clothing": "👕👗👖🎩👟🧦🧤👓",
    "a building": "🏠🏰⛪🗼",
    "a thing": "⚽🏀🔨✂🔑🔒💡📷📱💻⏰☂🎈🎁📖✏🔔⚓💎🧲☀🌙⭐🌈☁🔥⛄❄",
}

_SHORT = {
    "cow face": "cow",
    "honeybee": "bee",
    "lady beetle": "beetle",
    "tropical fish": "fish",
    "spouting whale": "whale",
    "dromedary camel": "camel",
    "red apple": "apple",
    "kiwifruit": "kiwi",
    "ear of maize": "corn",
    "cheese wedge": "cheese",
    "french fries": "fries",
    "slice of pizza": "pizza",
    "birthday cake": "cake",
    "soft ice cream": "ice cream",
    "evergreen tree": "tree",
    "palm tree": "palm",
    "maple leaf": "leaf",
    "tangerine": "orange",
    "hamburger": "burger",
    "doughnut": "donut",
    "lollipop": "candy",
    "sailboat": "boat",
    "top hat": "hat",
    "alarm clock": "clock",
    "four leaf clover": "clover",
    "automobile": "car",
    "steam locomotive": "train",
    "drum with drumsticks": "drum",
    "musical keyboard": "piano",
    "t-shirt": "shirt",
    "athletic shoe": "shoe",
    "eyeglasses": "glasses",
    "house building": "house",
    "european castle": "castle",
    "tokyo tower": "tower",
    "soccer ball": "football",
    "basketball and hoop": "basketball",
    "black scissors": "scissors",
    "electric light bulb": "bulb",
    "mobile phone": "phone",
    "personal computer": "laptop",
    "wrapped present": "present",
    "open book": "book",
    "gem stone": "diamond",
    "black sun with rays": "sun",
    "crescent moon": "moon",
    "white medium star": "star",
    "snowman without snow": "snowman",
}

_SEVERAL = frozenset({"grapes", "cherries", "fries", "jeans", "socks", "gloves", "glasses", "scissors"})
_SOME = frozenset({"corn", "broccoli", "bread", "cheese", "popcorn", "ice cream", "fire"})


@dataclass(frozen=True)
class Emoji:
    """One emoji: its character, its name in plain English, and the sort of thing that it is ("an animal")."""

    character: str
    name: str
    sort: str

    @property
    def several(self) -> bool:
        """Whether the name is a plural, such as "grapes"."""
        return self.name in _SEVERAL

    @property
    def phrase(self) -> str:
        """The name with its article: "an owl", "some bread", "some grapes"."""
        if self.name in _SEVERAL or self.name in _SOME:
            return f"some {self.name}"
        return f"an {self.name}" if self.name[0] in "aeio" or self.name == "umbrella" else f"a {self.name}"


def _name(character: str) -> str:
    """Return Unicode's name of a character in lower case, or the short form that people say."""
    told = unicodedata.name(character).lower()
    return _SHORT.get(told, told.removesuffix(" face"))


EMOJI = tuple(Emoji(character, _name(character), sort) for sort, characters in _SORTS.items() for character in characters)


@cache
def sprite(number: int, side: int) -> Image.Image:
    """Return emoji `number` of `EMOJI` in RGBA, scaled to `side` x `side` pixels."""
    row, column = divmod(number, COLUMNS)
    corner = column * TILE, row * TILE
    tile = _atlas().crop((*corner, corner[0] + TILE, corner[1] + TILE))
    return tile.resize((side, side), Image.Resampling.BOX if side * 2 <= TILE else Image.Resampling.BICUBIC)


@cache
def _atlas() -> Image.Image:
    with Image.open(ATLAS) as image:
        return image.convert("RGBA")
