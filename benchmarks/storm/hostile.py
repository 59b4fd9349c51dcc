"""Images and bodies that nobody sends by mistake: mutated files, sizes that lie, text that is no request."""

import base64
import io
import json
import struct
import zlib
from random import Random
from typing import Any

from PIL import Image, ImageDraw

FORMS = ("PNG", "JPEG", "WEBP")


def picture(seed: int, side: int = 224) -> Image.Image:
    """Return a picture with a few coloured shapes."""
    random = Random(seed)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        left, top = random.randrange(side), random.randrange(side)
        draw.ellipse((left, top, left + 60, top + 40), fill=tuple(random.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def data_url(content: bytes, form: str = "PNG") -> str:
    """Return a file as a data URL."""
    return f"data:image/{form.lower()};base64,{base64.b64encode(content).decode()}"


def image_url(random: Random) -> str:
    """Return the data URL of an image that is broken, or lies about its size."""
    form = random.choice(FORMS)
    if random.random() < 0.1:
        side = random.choice((5_000, 11_000, 60_000, 2**31 - 1))
        return data_url(lying_png(side, side))
    return data_url(mutated(random, encoded(picture(random.randrange(8)), form)), form)


def mutated(random: Random, content: bytes) -> bytes:
    """Return bytes with some changed, removed, doubled or cut off."""
    found = bytearray(content)
    for _ in range(random.randint(1, 12)):
        place = random.randrange(len(found))
        length = random.randint(1, 40)
        match random.randrange(4):
            case 0:
                found[place] = random.randrange(256)
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = found[place : place + length]
            case 3:
                found[place : place + 4] = struct.pack(">I", random.choice((0, 1, 2**31 - 1, 2**32 - 1)))
        if len(found) < 2:
            break
    return bytes(found)


def lying_png(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that claims a size."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")


def body(random: Random, good: dict[str, Any]) -> bytes:
    """Return the body of a request that is damaged: as bytes, or in one of its values."""
    if random.random() < 0.5:
        return mutated(random, json.dumps(good).encode())
    wrong: Any = random.choice((None, -1, 1e308, "", [], {}, [[[]]], "\ud800", "x" * 5000, True, 2**70))
    return json.dumps(good | {random.choice((*good, "n", "stop", "seed", "tools", "temperature")): wrong}).encode()
