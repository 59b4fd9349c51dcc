"""Bad images: counted, left out up to the limit, refused beyond it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.material import FORMS, Asked, expected, lines, seen
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.sequences.screening import Limit
from vlmc.toolchain.settings import DataSettings, RepairSettings
from vlmc.toolchain.stages.repair import Repair


def image(form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)).save(buffer, form, **how)
    return buffer.getvalue()


def zero(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes(image("JPEG")[:300])


def text(folder: Path, name: str) -> None:
    (folder / name).write_text("<html>not found</html>")


def gone(folder: Path, name: str) -> None:
    (folder / name).unlink()


BREAKS = (zero, cut, text, gone)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two hundred questions about as many images."""
    (tmp_path / "p").mkdir()
    content = image("PNG")
    for number in range(200):
        (tmp_path / "p" / f"{number}.png").write_bytes(content)
    rows = [{"image": f"p/{number}.png", "question": "what?", "answer": f"a{number}"} for number in range(200)]
    lines(tmp_path / "d.jsonl", rows)
    return tmp_path


def settings(folder: Path, max_bad: str = "1%") -> DataSettings:
    return DataSettings(data=str(folder / "d.jsonl"), max_bad=max_bad)


def spoil(folder: Path, *numbers: int) -> None:
    for number in numbers:
        BREAKS[number % len(BREAKS)](folder / "p", f"{number}.png")


@pytest.mark.parametrize("spoiler", BREAKS)
def test_a_bad_image_is_left_out_and_told(
    folder: Path, spoiler: Callable[[Path, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoiler(folder / "p", "3.png")
    found = data.load(settings(folder), "test", check=True)
    assert [one.answer for one in found] == [f"a{number}" for number in range(200) if number != 3]
    (record,) = caplog.records
    assert "left out 1 unreadable image: d.jsonl line 4: " in record.getMessage()


def test_a_counted_set_is_filled_up_with_the_next_good_ones(folder: Path) -> None:
    spoil(folder, 3, 7)
    found = data.load(settings(folder, "2"), "test", 10, check=True)
    assert [one.answer for one in found] == [f"a{number}" for number in (0, 1, 2, 4, 5, 6, 8, 9, 10, 11)]
    with pytest.raises(InputError, match=r"d.jsonl: 2 unreadable images, but --max-bad 1 of 10 allows 1: d.jsonl line 4"):
        data.load(settings(folder, "1"), "test", 10, check=True)
    with pytest.raises(InputError, match="has only 200 of the 199 samples that are needed, with 2 unreadable images"):
        data.load(settings(folder, "2"), "test", 199, check=True)


def test_no_more_images_are_opened_than_are_needed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(folder, 11)
    found = data.load(settings(folder, "5"), "test", 10, check=True)
    assert [one.answer for one in found] == [f"a{number}" for number in range(10)]
    assert not caplog.records


def test_the_limit_is_no_part_of_what_a_repair_is(folder: Path) -> None:
    strict, loose = (Repair(RepairSettings(max_bad=limit)) for limit in ("0", "50%"))
    assert strict.settings() == loose.settings(), "else a run that stops at the limit could not go on with a higher one"


def test_beyond_the_limit_the_data_is_refused_with_the_first_names(folder: Path) -> None:
    spoil(folder, 3, 6, 9, 12)
    message = r"3 unreadable images, .* --max-bad 1% of 200 allows 2: .* line 4: .*; d.jsonl line 7: .*; d.jsonl line 10: "
    with pytest.raises(InputError, match=message) as caught:
        data.load(settings(folder), "test", check=True)
    assert "\n" not in str(caught.value)
    lazy = data.load(settings(folder), "test")
    with pytest.raises(InputError, match="allows 2"):
        list(lazy)


def test_another_good_sample_stands_in_whatever_was_asked_before(folder: Path) -> None:
    spoil(folder, 3, 4, 199)
    forwards, backwards = (data.load(settings(folder, "3"), "test") for _ in range(2))
    there = [forwards[number].answer for number in range(200)]
    back = [backwards[number].answer for number in reversed(range(200))][::-1]
    assert there == back
    assert (there[3], there[4], there[5], there[199]) == ("a5", "a5", "a5", "a0")
    assert data.load(settings(folder, "3"), "test")[4].answer == "a5"


def test_a_bad_image_counts_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(folder, 3, 4)
    found = data.load(settings(folder), "test")
    for _ in range(3):
        assert [found[number].answer for number in (2, 3, 4)] == ["a2", "a5", "a5"]
    assert len(caplog.records) == 2


def test_nothing_but_bad_images_is_refused(tmp_path: Path) -> None:
    lines(tmp_path / "d.jsonl", [{"image": "gone.png", "question": "what?", "answer": "a"}] * 3)
    with pytest.raises(InputError, match="none of the images can be read"):
        _ = data.load(settings(tmp_path, "100%"), "test")[1]


@pytest.mark.parametrize(
    ("limit", "total", "allowed"),
    [("0", 10, 0), ("3", 10, 3), ("1%", 99, 0), ("1%", 100, 1), ("29%", 100, 29), ("0.5 %", 1000, 5), ("100%", 7, 7)],
)
def test_limits(limit: str, total: int, allowed: int) -> None:
    assert Limit(limit).of(total) == allowed


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "101%", "all", "%"])
def test_what_is_no_limit(limit: str) -> None:
    with pytest.raises(InputError, match="--max-bad"):
        Limit(limit)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_leaves_a_bad_image_out(tmp_path: Path, asked: list[Asked], form: str) -> None:
    broken = [Asked(one.name, b"" if one.name == "001.jpg" else one.content, **one.row) for one in asked]
    source = DataSettings(data=str(FORMS[form](tmp_path / "d", broken)), max_bad="1")
    good = [expected(asked)[number] for number in (0, 2, 3, 4, 5)]
    assert seen(data.load(source, "test", check=True)) == good
    assert seen(data.load(source, "test", 4, check=True)) == good[:4]
    assert seen([data.load(source, "test")[1]]) == good[1:2]
    with pytest.raises(InputError, match="1 unreadable image"):
        data.load(source.model_copy(update={"max_bad": "0"}), "test", check=True)


def test_unusual_images_are_good(tmp_path: Path) -> None:
    colours = Image.fromarray(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3))
    turned = Image.Exif()
    turned[0x0112] = 6  # rotated by a quarter
    ways = {
        "cmyk.jpg": image("JPEG", exif=turned),
        "deep.png": _saved(Image.fromarray(np.full((12, 16), 300, np.uint16)), "PNG"),
        "moving.gif": _saved(colours, "GIF", save_all=True, append_images=[colours.rotate(180)]),
        "palette.png": _saved(colours.convert("P"), "PNG"),
        "real-cmyk.jpg": _saved(colours.convert("CMYK"), "JPEG"),
    }
    for name, content in ways.items():
        (tmp_path / name).write_bytes(content)
    lines(tmp_path / "d.jsonl", [{"image": name, "question": "what?", "answer": "a"} for name in ways])
    found = data.load(settings(tmp_path, "0"), "test", check=True)
    assert [one.load_image().size for one in found] == [(12, 16), *[(16, 12)] * 4]
    assert {one.load_image().mode for one in found} == {"RGB"}


def _saved(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()
