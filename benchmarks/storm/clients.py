"""Clients, good and bad: each asks once in its own way."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from storm import hostile
from storm.exchange import Came, Manner, exchange

QUESTION = "how many digits are there ?"


@dataclass(frozen=True)
class Target:
    """Where requests go, and the answers that are right, by the seed of the picture."""

    host: str
    port: int
    model: str
    right: Mapping[int, str]


def asked(target: Target, seed: int, **changed: Any) -> dict[str, Any]:
    """Return a request about a picture, greedy."""
    shown = {"type": "image_url", "image_url": {"url": hostile.data_url(hostile.encoded(hostile.picture(seed)))}}
    content = [shown, {"type": "text", "text": QUESTION}]
    return {"model": target.model, "messages": [{"role": "user", "content": content}], "max_tokens": 32} | changed


async def post(target: Target, body: bytes, manner: Manner | None = None, length: int | None = None) -> Came:
    """Send a body; `length` is what it is said to have, -1 if nothing is said."""
    sized = f"Content-Length: {len(body) if length is None else length}" if length != -1 else "Transfer-Encoding: chunked"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: application/json\r\n"
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if length == -1 else body
    content = f"{head}Connection: close\r\n{sized}\r\n\r\n".encode() + framed
    return await exchange(target.host, target.port, content, manner or Manner())


def _good(target: Target, random: Random, **changed: Any) -> tuple[int, bytes]:
    seed = random.choice(list(target.right))
    return seed, json.dumps(asked(target, seed, **changed)).encode()


async def whole(target: Target, random: Random) -> tuple[Came, int]:
    """Ask; return the picture's seed, too."""
    seed, body = _good(target, random)
    return await post(target, body), seed


async def streamed(target: Target, random: Random) -> tuple[Came, int]:
    """Ask for a stream and read it to its end."""
    seed, body = _good(target, random, stream=True)
    return await post(target, body), seed


async def slow_reader(target: Target, random: Random) -> tuple[Came, int]:
    """Read a stream a few bytes at a time, through a small buffer."""
    seed, body = _good(target, random, stream=True)
    return await post(target, body, Manner(pause=0.05, buffer=1024)), seed


async def slow_sender(target: Target, random: Random) -> tuple[Came, int]:
    """Send the body in small pieces."""
    seed, body = _good(target, random)
    return await post(target, body, Manner(pieces=20)), seed


async def vanishes(target: Target, random: Random) -> Came:
    """Go away while the answer is waited for, or while it comes."""
    _, body = _good(target, random, stream=random.random() < 0.5)
    return await post(target, body, Manner(leaves=random.choice((0.0, 0.01, 0.05, 0.2, 1.0))))


async def half_sender(target: Target, random: Random) -> Came:
    """Send half a request and go away."""
    _, body = _good(target, random)
    return await post(target, body[: len(body) // 2], Manner(leaves=0.05), len(body))


async def malformed(target: Target, random: Random) -> Came:
    """Send a body that is no request."""
    return await post(target, hostile.body(random, asked(target, 0)))


async def hostile_image(target: Target, random: Random) -> Came:
    """Ask about a broken image."""
    request = asked(target, 0)
    request["messages"][0]["content"][0]["image_url"]["url"] = hostile.image_url(random)
    return await post(target, json.dumps(request).encode())


async def too_large(target: Target, random: Random) -> Came:
    """Send more than may be sent, with or without saying so before."""
    return await post(target, b" " * 3_000_000, length=random.choice((None, -1)))


async def no_http(target: Target, random: Random) -> Came:
    """Send bytes that are no HTTP."""
    return await exchange(target.host, target.port, b"\x16" + random.randbytes(200) + b"\r\n\r\n", Manner())


async def looks(target: Target, random: Random) -> Came:
    """Read what the server says of itself."""
    path = random.choice(("/", "/health", "/ready", "/metrics", "/v1/models", "/openapi.json", "/nothing"))
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return await exchange(target.host, target.port, head.encode(), Manner())


Client = Callable[[Target, Random], Awaitable[Came | tuple[Came, int]]]
CLIENTS: Mapping[str, tuple[Client, int]] = {
    "whole answer": (whole, 6),
    "streamed answer": (streamed, 6),
    "client that vanishes": (vanishes, 4),
    "slow reader": (slow_reader, 2),
    "slow sender": (slow_sender, 1),
    "half a request": (half_sender, 1),
    "malformed body": (malformed, 3),
    "hostile image": (hostile_image, 4),
    "body that is too large": (too_large, 1),
    "no HTTP": (no_http, 1),
    "look at the server": (looks, 1),
}
"""Every kind of client, and how often it comes."""
