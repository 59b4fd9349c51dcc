"""From a request and the files of its images to the messages that a model is asked."""

from collections.abc import Iterator, Mapping
from typing import Final

from PIL import Image

from vlmc.runtime.errors import InputError
from vlmc.runtime.images import open_image
from vlmc.runtime.messages import Message, Part, Role
from vlmc.runtime.serving.asked import ChatMessage, ChatRequest, TextPart, place_of
from vlmc.runtime.serving.refusals import Refused

_ROLES: Final[Mapping[str, Role]] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_messages(asked: ChatRequest, files: Mapping[str, bytes]) -> list[Message]:
    """Return the conversation with its images decoded; `files` are by their place in the request.

    Raises:
        InputError: a turn has what its role may not have.
        Refused: an image cannot be read.
    """
    return [Message(_ROLES[message.role], _content(index, message, files)) for index, message in enumerate(asked.messages)]


def _content(index: int, message: ChatMessage, files: Mapping[str, bytes]) -> str | list[Part]:
    return message.content if isinstance(message.content, str) else list(_parts(index, message, files))


def _parts(index: int, message: ChatMessage, files: Mapping[str, bytes]) -> Iterator[Part]:
    for number, part in enumerate(message.content):
        if isinstance(part, TextPart):
            yield part.text
        elif not isinstance(part, str):
            yield _image(place_of(index, number), files)


def _image(place: str, files: Mapping[str, bytes]) -> Image.Image:
    try:
        return open_image(files[place])
    except InputError as error:
        message = str(error).replace("the image given as bytes", place, 1)
        raise Refused(422, message, "invalid_image", param=place) from None
