"""Render the atlas of emoji from Noto Color Emoji: `python -m vlmc.toolchain.smol.atlas FONT.ttf`.

Debian's package `fonts-noto-color-emoji` puts the font at /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlmc.toolchain.smol.emoji import ATLAS, COLUMNS, EMOJI, TILE

_STRIKE = 109
"""The one size that the font's images come in."""


def render(font_path: Path, out: Path = ATLAS) -> None:
    """Write the atlas: every emoji cut to what is drawn, centred in its tile, lossless."""
    font = ImageFont.truetype(str(font_path), _STRIKE)
    rows = -(-len(EMOJI) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * TILE, rows * TILE))
    for number, emoji in enumerate(EMOJI):
        row, column = divmod(number, COLUMNS)
        atlas.paste(_tile(font, emoji.character), (column * TILE, row * TILE))
    atlas.save(out, lossless=True, quality=100, method=6)


def _tile(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    canvas = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(canvas).text((20, 20), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font does not draw {character}")
    drawn = canvas.crop(box)
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square.resize((TILE, TILE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m vlmc.toolchain.smol.atlas", description=__doc__.splitlines()[0])
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf")
    render(parser.parse_args().font)
