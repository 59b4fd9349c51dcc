"""Images as nobody sends them by mistake: sizes that lie, extreme aspects, rare modes and forms, odd EXIF, damage."""

import io
import struct
import zlib
from collections.abc import Callable
from random import Random

from PIL import Image

from tests.fuzz.spoiling import Spoiled, spoil_bytes

ORIENTATION = 0x0112
_FORMS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16")
_SIDES = (1, 2, 3, 31, 224, 5000)


def spoil_image(random: Random, good: bytes) -> Spoiled:
    """Return an image file that is odd or broken, and what it is."""
    makers: tuple[Callable[[Random, bytes], Spoiled], ...] = (spoil_bytes, _any_form, _spoiled_form, _sized, _exif, _chunk)
    return random.choice(makers)(random, good)


def png(width: int, height: int, color: int = 2, body: bytes | None = None) -> bytes:
    """Return a PNG that claims a size: grey (0), RGB (2) or RGBA (6); by default all zeros, compressed as it should be."""
    if body is None:
        packer, row = zlib.compressobj(9), bytes(1 + width * {0: 1, 2: 3, 6: 4}[color])
        body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", header) + _part(b"IDAT", body) + _part(b"IEND", b"")


def jpeg(exif: bytes) -> bytes:
    """Return a small JPEG with those bytes as its EXIF data."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), (9, 99, 199)).save(buffer, "JPEG", exif=b"Exif\0\0" + exif)
    return buffer.getvalue()


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    """Return EXIF data of entries: tag, type, count, and the value or where it lies."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<4sIH", b"II*\0", 8, len(entries)) + table + bytes(4)


def _part(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _any_form(random: Random, good: bytes) -> Spoiled:
    form, mode = random.choice(_FORMS), random.choice(_MODES)
    size = (random.choice(_SIDES), random.choice(_SIDES))
    buffer = io.BytesIO()
    try:
        Image.new(mode, size).save(buffer, form)
    except (OSError, ValueError, KeyError):  # not every form has every mode
        return _sized(random, good)
    return buffer.getvalue(), f"{form} of mode {mode}, {size[0]} x {size[1]}"


def _spoiled_form(random: Random, good: bytes) -> Spoiled:
    content, what = _any_form(random, good)
    content, how = spoil_bytes(random, content)
    return content, f"{what}, {how}"


def _sized(random: Random, good: bytes) -> Spoiled:
    """A size that the header alone claims, or a long thin image that is really there."""
    if random.random() < 0.5:
        width, height = random.choice(
            [(2**31 - 1, 1), (1, 2**31 - 1), (0, 5), (60_000, 60_000), (13_000, 13_000), (2**16, 2**16)]
        )
        return png(
            width, height, random.choice([0, 2, 6]), zlib.compress(bytes(1000))
        ), f"a PNG that claims {width} x {height}"
    width, height = random.choice([(20_000, 1), (1, 20_000), (100_000, 1), (1, 100_000), (4000, 3), (6000, 6000)])
    return png(width, height), f"a PNG of {width} x {height}"


def _exif(random: Random, good: bytes) -> Spoiled:
    """EXIF data that turns the image, with entries that are odd beside it; or no EXIF data at all."""
    if random.random() < 0.3:
        content = random.choice([b"", b"II*\0", b"MM\0*", b"II*\0" + random.randbytes(30), random.randbytes(40)])
        return jpeg(content), f"a JPEG with EXIF data {content[:24].hex()}"
    tags, counts = (0x0100, 0x010E, 0x0112, 0x8769, 0x8825, 0x9286, 0xA005, 0xFFFF), (0, 1, 2, 5, 2**31)
    odd = [
        (random.choice(tags), random.randrange(14), random.choice(counts), random.choice([0, 6, 9, 40, 2**31]))
        for _ in range(2)
    ]
    return jpeg(exif((ORIENTATION, 3, 1, random.randrange(10)), *odd)), f"a JPEG with the EXIF entries {odd}"


def _chunk(random: Random, good: bytes) -> Spoiled:
    """A PNG with a chunk that is legal and odd: text that unpacks to much, a transparency or a palette out of place."""
    name = random.choice([b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"acTL", b"gAMA", b"sBIT"])
    content = random.choice([b"", b"k\0\0" + zlib.compress(bytes(2_000_000)), random.randbytes(12), b"\xff" * 6])
    small = png(8, 8)
    place = 33  # behind the header
    return small[:place] + _part(name, content) + small[place:], f"a PNG with {len(content)} bytes of {name.decode()}"
