"""What tells one data set from another: all that its samples hold, wherever they lie, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data import material
from tests.data.material import FORMS, Asked, conversations, lines
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.settings import DataSettings


@pytest.fixture(scope="module")
def plain(asked: list[Asked], tmp_path_factory: pytest.TempPathFactory) -> str:
    return of(conversations(tmp_path_factory.mktemp("plain"), asked))


def of(source: Path | str, count: int | None = None) -> str:
    return fingerprint(data.load(str(source), "test", count))


def flipped(one: Asked) -> Asked:
    """The same image file with its last byte but one changed: nothing that opens images sees it."""
    return replace(one, content=one.content[:-2] + bytes([one.content[-2] ^ 1]) + one.content[-1:])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_samples_have_the_same_in_every_form(tmp_path: Path, asked: list[Asked], form: str, plain: str) -> None:
    assert of(FORMS[form](tmp_path / "d", asked)) == plain


@pytest.mark.parametrize("form", FORMS)
def test_a_byte_of_one_image_makes_another(tmp_path: Path, asked: list[Asked], form: str, plain: str) -> None:
    assert of(FORMS[form](tmp_path / "d", [*asked[:5], flipped(asked[5])])) != plain


def test_every_text_and_the_order_count(tmp_path: Path, asked: list[Asked], plain: str) -> None:
    others = [
        asked[::-1],
        asked[:5],
        [*asked[:5], replace(asked[5], question="what else?")],
        [*asked[:5], replace(asked[5], answer="none of these")],
    ]
    found = [of(conversations(tmp_path / str(number), some)) for number, some in enumerate(others)]
    assert len({plain, *found}) == 5
    assert of(conversations(tmp_path / "kind", [*asked[:5], replace(asked[5], kind="else")])) == plain


def test_only_the_samples_that_are_asked_for_count(tmp_path: Path, asked: list[Asked]) -> None:
    whole = conversations(tmp_path / "a", asked)
    other = conversations(tmp_path / "b", [*asked[:5], flipped(asked[5])])
    assert of(whole, 5) == of(other, 5)


def test_a_mixture_is_what_its_parts_are(tmp_path: Path, asked: list[Asked]) -> None:
    one, other = conversations(tmp_path / "a", asked[:3]), conversations(tmp_path / "b", asked[3:])
    changed = conversations(tmp_path / "c", [*asked[3:5], flipped(asked[5])])
    found = [
        of(f"{one},{other}"),
        of(f"{one},{changed}"),
        of(f"{other},{one}"),
        of(f"{one}=0.9,{other}=0.1"),
        of("demo,demo"),
    ]
    assert len(set(found)) == 5
    assert of(f"{one},{other}") == found[0]


def test_the_demo_is_not_drawn_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = of("demo"), of("demo", 100)
    assert whole.startswith("2000:")
    assert len({whole, part, fingerprint(data.load("demo", "train", 100))}) == 3
    monkeypatch.setattr("vlmc.toolchain.demo.dataset.render", lambda scene: __import__("PIL.Image").Image.new("RGB", (4, 4)))
    assert of("demo", 100) != part


def test_images_that_are_missing_count_as_that(tmp_path: Path, asked: list[Asked], plain: str) -> None:
    path = conversations(tmp_path, asked)
    (tmp_path / asked[2].name).unlink()
    gone = of(path)
    assert gone != plain
    (tmp_path / asked[2].name).write_bytes(asked[2].content)
    assert of(path) == plain


def test_a_broken_row_is_told(tmp_path: Path, asked: list[Asked]) -> None:
    material.put_images(tmp_path, asked)
    path = lines(tmp_path / "d.jsonl", [{"image": one.name, "question": one.question, "answer": ""} for one in asked])
    with pytest.raises(InputError, match="line 1: answer is empty"):
        fingerprint(data.load(DataSettings(data=str(path), max_bad="100%"), "test"))
