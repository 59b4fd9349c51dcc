"""Memory of reading one image, of the most pixels that vlmc takes and of the most that it does not reduce, in each form.

Every image is read in a process of its own, whose greatest resident memory counts: interpreter and libraries included.
"""

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from processes import watch
from report import Bar, Row, arguments, command, finish, measured, prepare, report

from vlmc.runtime.images import LARGE, MOST_COPIED, MOST_PIXELS

NAME = "images"
LIMIT = 1000  # MB for one image, as docs/data.md and runtime/images.py promise
QUICK = 2_000_000
FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("RGB", "jpg", {}),
    "JPEG, progressive": ("RGB", "jpg", {"progressive": True}),
    "JPEG, CMYK": ("CMYK", "jpg", {}),
    "PNG": ("RGB", "png", {"compress_level": 1}),
    "PNG with transparency": ("RGBA", "png", {"compress_level": 1}),
    "PNG, palette": ("P", "png", {"compress_level": 1}),
    "PNG, 16-bit grey": ("I;16", "png", {"compress_level": 1}),
    "GIF": ("P", "gif", {}),
    "TIFF with transparency": ("RGBA", "tif", {"compression": "tiff_adobe_deflate"}),
    "BMP": ("RGB", "bmp", {}),
}
"""Forms of files: Pillow's mode, the ending, and how it is saved."""
COPIED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "WebP with transparency": ("RGBA", "webp", {"lossless": True, "quality": 0, "method": 0}),
    "AVIF with transparency": ("RGBA", "avif", {"speed": 10}),
    "JPEG 2000 with transparency": ("RGBA", "jp2", {}),
}
"""Forms whose decoders hold several copies of an image, which may have fewer pixels."""
_READ = "import sys; from vlmc.runtime.images import open_image; open_image(sys.argv[1])"


def main(given: Sequence[str]) -> int:
    """Measure; return 1 where a bar does not hold."""
    chosen = arguments(__doc__).parse_args(given)
    prepare(chosen)
    rows = []
    with TemporaryDirectory() as scratch:
        for form, pixels in _cases(quick=chosen.quick):
            print(f"{form}, {pixels:,} pixels ...", file=sys.stderr, flush=True)
            rows.append(_measure(form, pixels, Path(scratch)))
    bars = [_bar(row) for row in rows]
    result = report(command(NAME, given), rows, bars, {})
    finish(result, NAME, chosen)
    return 0 if all(bar.holds for bar in bars) else 1


def _cases(*, quick: bool) -> list[tuple[str, int]]:
    """Return each form with the most pixels that it may have, and with the most at which it is not reduced."""
    most = dict.fromkeys(FORMS, MOST_PIXELS) | dict.fromkeys(COPIED, MOST_COPIED)
    return [(form, QUICK if quick else pixels) for form in most for pixels in ((0,) if quick else (LARGE, most[form]))]


def _measure(form: str, pixels: int, scratch: Path) -> Row:
    mode, ending, options = (FORMS | COPIED)[form]
    path, side = scratch / f"image.{ending}", int(pixels**0.5)
    _drawn(mode, side).save(path, **options)
    peak = watch(subprocess.Popen([sys.executable, "-c", _READ, str(path)]))
    path.unlink()
    return measured(f"{form}, {side} x {side} pixels", "peak resident memory", [peak / 1e6], "MB")


def _drawn(mode: str, side: int) -> Image.Image:
    """Return an image of one patch of noise over and over: no form stores it as one colour."""
    patch = Image.frombytes("L", (256, 256), random.Random(0).randbytes(256 * 256))
    grey = Image.new("L", (side, side))
    for top in range(0, side, 256):
        for left in range(0, side, 256):
            grey.paste(patch, (left, top))
    if mode == "RGBA":
        return Image.merge(mode, (grey, grey, grey, grey))
    return grey.convert(mode)


def _bar(row: Row) -> Bar:
    value = row.value or 0.0
    return Bar(f"{row.name}, peak memory", f"below {LIMIT} MB", value, value < LIMIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
