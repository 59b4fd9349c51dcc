"""The images of a request: from data URLs, and from addresses where the server fetches them."""

import base64
import binascii
import re
from typing import Final, final

from vlmc.runtime.errors import InputError
from vlmc.runtime.serving.asked import ChatRequest
from vlmc.runtime.serving.limits import Limits
from vlmc.runtime.serving.refusals import Refused
from vlmc.runtime.serving.remote import Allowed, fetch, is_public

_DATA: Final = re.compile(r"data:image/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


@final
class Sources:
    """Finds the bytes of images; from the network only where `remote` allows it, and only what is `allowed` there."""

    def __init__(self, limits: Limits, *, remote: bool = False, allowed: Allowed = is_public) -> None:
        self._limits, self._remote, self._allowed = limits, remote, allowed

    async def read(self, request: ChatRequest) -> dict[str, bytes]:
        """Return the file of each image, by its place in the request.

        Raises:
            Refused: there are too many, or one is no image that may be read here, or cannot be fetched.
        """
        places = dict(request.images())
        if len(places) > self._limits.images:
            message = f"the conversation has {len(places)} images: the limit is {self._limits.images}"
            raise Refused(400, message, "too_many_images", param="messages")
        files: dict[str, bytes] = {}
        left = self._limits.body
        for place, url in places.items():
            if url[:5].lower() == "data:":
                files[place] = of_data_url(url, place)
            else:
                files[place] = await self._fetch(url, place, left)
                left -= len(files[place])
        return files

    async def _fetch(self, url: str, place: str, most: int) -> bytes:
        if not url[:8].lower().startswith(("http://", "https://")):
            message = f"{place} is neither a data URL nor an http or https address: send 'data:image/png;base64,...'"
            raise Refused(400, message, "invalid_image_url", param=place)
        if not self._remote:
            message = f"{place}: this server fetches no images: send a data URL, or start it with --allow-remote"
            raise Refused(400, message, "remote_images_off", param=place)
        try:
            return await fetch(url, most, allowed=self._allowed)
        except InputError as error:
            raise Refused(422, f"{place}: {error}", "image_not_fetched", param=place) from None


def of_data_url(url: str, place: str) -> bytes:
    """Return what a data URL holds.

    Raises:
        Refused: it is not an image in base64.
    """
    head = _DATA.match(url[:200])
    try:
        if head is not None:
            return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        pass
    message = f"{place} is no data URL of an image in base64: write it as 'data:image/png;base64,...'"
    raise Refused(400, message, "invalid_image_url", param=place)
