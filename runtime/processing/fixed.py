"""Images of one size and a constant number of tokens: numpy, Pillow and tokenizers, without transformers."""

from collections.abc import Sequence

import numpy as np

from vlmc.runtime.controls import without
from vlmc.runtime.deployment import Deployment, FixedProcessor
from vlmc.runtime.errors import InputError
from vlmc.runtime.images import preprocess
from vlmc.runtime.processing.base import Batch, Processing, Request, pad
from vlmc.runtime.processing.positions import sequential
from vlmc.runtime.text import Text


class Fixed(Processing):
    """The pipeline of LLaVA and BLIP-2.

    Raises:
        InputError: the tokenizer has another id for the image token than the graphs.
    """

    def __init__(self, deployment: Deployment, processor: FixedProcessor, text: Text) -> None:
        self._deployment, self._processor, self._text = deployment, processor, text
        known = text.number(deployment.prompt.slot)
        if deployment.prompt.place == "inline" and known != deployment.image_token_id:
            raise InputError(
                f"{text.path} has {deployment.prompt.slot} as token {known}, the graphs expect "
                f"{deployment.image_token_id}: export again"
            )

    def __call__(self, requests: Sequence[Request]) -> Batch:
        ids_BS, mask_BS = pad([self.encode(request) for request in requests], fill=0)
        images = [preprocess(image, self._processor.image) for request in requests for image in request.images]
        vision = {"pixel_values": np.concatenate(images)} if images else {}
        return Batch(ids_BS, mask_BS, sequential(mask_BS), vision)

    def encode(self, request: Request) -> list[int]:
        """Return the ids of a request, with special tokens, and with each image's tokens in their place.

        Raises:
            InputError: the text has more or fewer slots than there are images.
        """
        prompt, count = self._deployment.prompt, self._processor.image_tokens
        if request.text.count(prompt.slot) != len(request.images):
            raise InputError(
                f"the text has {request.text.count(prompt.slot)} slots for images ({prompt.slot}), and there are "
                f"{len(request.images)} images"
            )
        if prompt.place == "front":
            front = [self._deployment.image_token_id] * count * len(request.images)
            return front + self._text.encode(without(prompt.slot, request.text))
        if not self._text.stands_apart(self._deployment.image_token_id):
            return self._text.encode(request.text.replace(prompt.slot, prompt.slot * count))
        return [
            number
            for one in self._text.encode(request.text)
            for number in ([one] * count if one == self._deployment.image_token_id else [one])
        ]
