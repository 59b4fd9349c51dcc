"""Message: a turn of a conversation about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from PIL import Image

from vlmc.runtime.errors import InputError, shortened
from vlmc.runtime.images import ImageInput

Part = str | Path | bytes | Image.Image
"""Of a turn: a `str` is always text; an image is a `Path`, the bytes of a file, or an image of Pillow."""
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@final
@dataclass(frozen=True)
class Message:
    """A turn: who speaks, and a text, or texts and images in their order.

    Whatever a text spells is text, also where it spells a control token or an image's place.

    Raises:
        InputError: there is no such role, or the content is something else, or empty.
    """

    role: Role
    content: str | Sequence[Part]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"a message's role is {shortened(repr(self.role), 60)}: give one of {', '.join(ROLES)}")
        given: object = self.content
        if isinstance(given, bytes) or not isinstance(given, str | Sequence):
            raise InputError(f"a message's content is a {type(given).__name__}: give a text, or a list of parts")
        for part in self.parts:
            if not isinstance(part, str | Path | bytes | Image.Image):
                raise InputError(f"a part of a message is a {type(part).__name__}: give a text, a Path, bytes or an image")
        if self.role != "user" and self.images:
            raise InputError(f"the {self.role} shows an image: only the user may")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content, part by part; texts that follow each other are one."""
        given = (self.content,) if isinstance(self.content, str) else tuple(self.content)
        parts: list[Part] = []
        for part in given:
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        return tuple(parts)

    @property
    def images(self) -> tuple[ImageInput, ...]:
        """The images of the turn, in their order."""
        return tuple(part for part in self.parts if not isinstance(part, str))
