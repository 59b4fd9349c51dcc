"""What one server takes on at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server, and of each of its requests.

    `tokens` is the longest answer, and how long one is that asks for no length. `seconds` is how long an answer may take,
    `arrival` how long the request for it. `body` is how many bytes a request may have, and again how many the images may
    have together that it names by address; `images` is how many a conversation may have. `requests` is how many requests
    are answered or wait at a time, over all models.
    """

    tokens: int = 512
    seconds: float = 120.0
    arrival: float = 30.0
    body: int = 20_000_000
    images: int = 32
    requests: int = 72
