"""Pixel values are those of transformers' PIL processors, for every size, mode and file that comes along."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import transformers
from packaging.version import Version
from PIL import Image
from transformers import BlipImageProcessorPil, CLIPImageProcessorPil

from vlmc.runtime import images
from vlmc.runtime.errors import InputError
from vlmc.runtime.images import open_image, preprocess, to_rgb
from vlmc.toolchain.deploy.describe import image_pipeline

PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 28, "width": 28}),
    "clip with a crop beyond the image": CLIPImageProcessorPil(
        size={"shortest_edge": 21}, crop_size={"height": 34, "width": 27}
    ),
    "clip without a resize": CLIPImageProcessorPil(do_resize=False, crop_size={"height": 33, "width": 32}),
    "blip": BlipImageProcessorPil(size={"height": 32, "width": 48}),
    "blip, bilinear, not normalised": BlipImageProcessorPil(
        size={"height": 17, "width": 19}, resample=2, do_normalize=False
    ),
    "blip, raw": BlipImageProcessorPil(size={"height": 8, "width": 8}, do_rescale=False, do_normalize=False),
}
SIZES = [(32, 32), (33, 71), (70, 31), (5, 9), (1, 1), (200, 3)]
COMPOSITES = Version(transformers.__version__) >= Version("5.23")  # before, what is transparent showed its hidden colour


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_sizes(name: str, size: tuple[int, int]) -> None:
    assert_equal(noise(*size), PROCESSORS[name])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "I", "F"])
def test_modes(mode: str) -> None:
    assert_equal(noise(40, 50, mode), PROCESSORS["clip"])


@pytest.mark.skipif(not COMPOSITES, reason="transformers before 5.23 drops transparency")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La"])
def test_transparency_shows_white(mode: str) -> None:
    assert_equal(noise(40, 50).convert("L").convert("LA") if mode == "La" else noise(40, 50, "RGBA"), PROCESSORS["clip"])


@pytest.mark.skipif(not COMPOSITES, reason="transformers before 5.23 drops transparency")
def test_transparent_colour_of_a_palette_shows_white() -> None:
    image = noise(40, 50, "P")
    image.info["transparency"] = 3
    assert_equal(image, PROCESSORS["clip"])


def test_invisible_pixels_are_white() -> None:
    assert open_image(Image.new("RGBA", (2, 2), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_files_stand_upright_as_their_exif_data_says(tmp_path: Path) -> None:
    image = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png").size == (20, 40)
    expected = PROCESSORS["clip"](str(tmp_path / "a.png"), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(
        preprocess(open_image(tmp_path / "a.png"), image_pipeline(PROCESSORS["clip"])), expected, rtol=0, atol=1e-6
    )


def test_path_text_and_bytes_are_one_image(tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise(10, 12).save(stream, "png")
    (tmp_path / "a").write_bytes(stream.getvalue())
    forms = [open_image(form).tobytes() for form in (tmp_path / "a", str(tmp_path / "a"), stream.getvalue())]
    assert forms == [noise(10, 12).tobytes()] * 3


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not an image"])
def test_what_is_not_an_image_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg is not an image that can be read"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="the image given as bytes is not an image"):
        open_image(content)


def test_image_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise(64, 64).save(stream, "png")
    with pytest.raises(InputError, match="is not an image that can be read"):
        open_image(stream.getvalue()[:-4000])


def test_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image at"):
        open_image(tmp_path)


def assert_equal(image: Image.Image, processor: CLIPImageProcessorPil | BlipImageProcessorPil) -> None:
    expected = processor(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(preprocess(open_image(image), image_pipeline(processor)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((100_000, 1), "100000 x 1 pixels: one side may be 200 times as long"),
        ((1, 1_000_000), "1 x 1000000 pixels: one side may be 200 times as long"),
        ((13_000, 13_000), "13000 x 13000 pixels: the limit is 128,000,000 pixels"),
        ((60_000, 60_000), "too large: the limit is 128,000,000 pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_and_too_long_images_are_refused_before_they_are_decoded(size: tuple[int, int], told: str) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0))
    with pytest.raises(InputError, match=told):
        open_image(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize("form", ["webp", "avif", "jpeg2000"])
def test_fewer_pixels_where_the_decoder_holds_several_copies(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    if form.upper() not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {form}")
    stream = io.BytesIO()
    noise(40, 50).save(stream, form)
    assert open_image(stream.getvalue()).size == (40, 50)
    monkeypatch.setattr(images, "MOST_COPIED", 1999)
    with pytest.raises(InputError, match=f"40 x 50 pixels: the limit is 1,999 pixels for {form.upper()}; make it smaller"):
        open_image(stream.getvalue())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_an_image_converted_in_strips_is_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(40, 50, "RGBA").convert("L").convert("LA") if mode == "LA" else noise(40, 50, mode)
    whole = to_rgb(image)
    monkeypatch.setattr(images, "_STRIP", 7 * 40)
    assert to_rgb(image).tobytes() == whole.tobytes()
    monkeypatch.setattr(images, "LARGE", 400)
    assert to_rgb(image).tobytes() == whole.reduce(3).tobytes()


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGE", 1000)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(64, 32).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (16, 32)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # it warns of the tags that it skips
def test_damaged_exif_data_do_not_matter() -> None:
    for exif in (b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\0\xff\xff\xff\xff" * 40, b"Exif\0\0MM"):
        stream = io.BytesIO()
        noise(16, 8).save(stream, "jpeg", exif=exif)
        assert open_image(stream.getvalue()).size == (16, 8)


def test_a_truncated_image_in_pillow_is_an_error() -> None:
    stream = io.BytesIO()
    noise(64, 64).save(stream, "png")
    with pytest.raises(InputError, match="the image is not an image that can be read"):
        open_image(Image.open(io.BytesIO(stream.getvalue()[:-4000])))


def test_no_other_program_is_started_for_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript"))
    with pytest.raises(InputError, match="is EPS, which only another program can draw"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")


@pytest.mark.parametrize("name", ["/dev/zero", "x" * 5000, "a\0b", "pipe"])
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(InputError, match="no image at"):
        open_image(name)
