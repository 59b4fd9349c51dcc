"""From a question, or the turns of a conversation, to the arrays that the graphs are fed, and the limits of the answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from vlmc.runtime.chat import ChatTemplate
from vlmc.runtime.deployment import Deployment
from vlmc.runtime.errors import InputError
from vlmc.runtime.images import ImageInput, open_image
from vlmc.runtime.messages import Message
from vlmc.runtime.options import Options
from vlmc.runtime.processing import Batch, Processing, Request
from vlmc.runtime.prompts import check_length, fill_prompt
from vlmc.runtime.text import Text

Images = ImageInput | Sequence[ImageInput]
"""One image, or several that the question is about."""


@dataclass(frozen=True)
class Asked:
    """A question in arrays: a batch of one row, how it is answered, how long it is, and how long its answer may be."""

    batch: Batch
    options: Options
    length: int
    limit: int


@final
class Asking:
    """Reads questions for one model. It keeps no state between calls: several threads may share it."""

    def __init__(self, root: Path, deployment: Deployment, text: Text, process: Processing) -> None:
        self._deployment, self._text, self._process = deployment, text, process
        self._template = ChatTemplate(deployment.prompt, text, root)

    def question(self, image: Images, prompt: str, *, raw: bool = False) -> Request:
        """Return the model's input for one question about one image or several.

        Raises:
            InputError: an image cannot be read, there are too many, or the prompt is empty or too long.
        """
        if not isinstance(prompt, str):
            raise InputError(f"the prompt is a {type(prompt).__name__}: give a text")
        given = list(image) if isinstance(image, Iterable) and not isinstance(image, ImageInput) else [image]
        for one in given:
            if not isinstance(one, ImageInput):
                raise InputError(f"an image is a {type(one).__name__}: give a path, bytes or an image of Pillow")
        self._check_count(len(given))
        check_length(prompt, self._deployment.max_positions)
        text = fill_prompt(self._deployment.prompt, prompt, self._text.controls, images=len(given), raw=raw)
        return Request(text, tuple(open_image(one) for one in given))

    def conversation(self, messages: Sequence[Message]) -> Request:
        """Return the model's input for a conversation that ends with a user's turn.

        Raises:
            InputError: as `question`; or the conversation does not fit the model's chat template.
        """
        images = [image for message in messages for image in message.images]
        self._check_count(len(images))
        texts = [part for message in messages for part in message.parts if isinstance(part, str)]
        check_length("".join(texts), self._deployment.max_positions)
        return Request(self._template.fill(messages), tuple(open_image(one) for one in images))

    def prepare(self, request: Request, options: Options) -> Asked:
        """Return a request in arrays.

        Raises:
            InputError: it takes more tokens than the model has room for, or the model's processor rejects it.
        """
        batch = self._process([request])
        length = int(batch.lengths_B[0])
        room = self._room(length)
        return Asked(batch, options, length, options.max_new_tokens if room is None else min(options.max_new_tokens, room))

    def _check_count(self, images: int) -> None:
        most = self._deployment.max_images
        if most is not None and images > most:
            raise InputError(f"{images} images were given, and this model looks at {most} at a time")

    def _room(self, prompt_tokens: int) -> int | None:
        """Return how many tokens may follow the prompt; None where there is no limit."""
        most = self._deployment.max_positions
        if most is None:
            return None
        if prompt_tokens >= most:
            raise InputError(
                f"the prompt and its images take {prompt_tokens} tokens, and this model has room for {most}: "
                "ask a shorter question"
            )
        return most - prompt_tokens
