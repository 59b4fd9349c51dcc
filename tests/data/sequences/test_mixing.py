"""Mixtures: exact proportions, the same every time."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.data.material import lines
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.sequences.mixing import epoch_counts, interleave, share
from vlmc.toolchain.settings import DataSettings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("p.png")
    for name, count in (("a", 20), ("b", 6), ("c", 10)):
        rows = [{"image": "p.png", "question": "what?", "answer": f"{name}{number}"} for number in range(count)]
        lines(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def answers(text: str, count: int | None = None, **options: object) -> list[str]:
    return [one.answer for one in data.load(DataSettings(data=text, **options), "test", count)]


def test_proportions_are_exact_at_every_length(here: Path) -> None:
    found = answers("a.jsonl=0.7,b.jsonl=0.2,c.jsonl=0.1")
    assert len(found) == 100, "c has 10 samples, which are a tenth: an epoch is a hundred"
    assert Counter(one[0] for one in found) == {"a": 70, "b": 20, "c": 10}
    for length in range(1, 101):
        counts = Counter(one[0] for one in found[:length])
        for name, part in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
            assert abs(counts[name] - part * length) < 1.5


def test_an_epoch_has_every_sample_and_the_shorter_ones_again(here: Path) -> None:
    found = Counter(answers("a.jsonl=1,b.jsonl=1"))
    assert {found[f"a{number}"] for number in range(20)} == {1}
    assert [found[f"b{number}"] for number in range(6)] == [4, 4, 3, 3, 3, 3]


def test_without_weights_every_sample_comes_once(here: Path) -> None:
    found = answers("a.jsonl, c.jsonl")
    assert sorted(found) == sorted([*answers("a.jsonl"), *answers("c.jsonl")])
    assert Counter(one[0] for one in found[:15]) == {"a": 10, "c": 5}


def test_a_count_of_a_mixture_keeps_the_weights(here: Path) -> None:
    found = answers("a.jsonl=3,c.jsonl=1", 16)
    assert sorted(found, key=lambda one: (one[0], int(one[1:]))) == [f"a{i}" for i in range(12)] + [
        f"c{i}" for i in range(4)
    ]
    assert Counter(one[0] for one in answers("a.jsonl,c.jsonl", 15)) == {"a": 10, "c": 5}
    assert answers("a.jsonl=3,c.jsonl=1", 1) == ["a0"]
    with pytest.raises(InputError, match=r"a.jsonl has only 20 of the 30 samples that are needed"):
        answers("a.jsonl=3,c.jsonl=1", 40)


def test_the_same_every_time_and_at_random(here: Path) -> None:
    text = "a.jsonl=0.6,b.jsonl=0.4"
    one, other = data.load(text, "test"), data.load(text, "test")
    assert [sample.answer for sample in one] == [other[index].answer for index in reversed(range(len(one)))][::-1]


def test_commas_in_braces_part_no_sources(here: Path) -> None:
    assert answers("{b,c}.jsonl") == answers("b.jsonl") + answers("c.jsonl")
    assert Counter(one[0] for one in answers("{b,c}.jsonl=1,a.jsonl=1", 8)) == {"b": 4, "a": 4}


def test_each_source_has_its_own_split_and_columns(here: Path) -> None:
    lines(here / "odd.jsonl", [{"photo": "p.png", "text": "odd0"}, {"photo": "p.png", "text": "odd1"}])
    found = data.load(DataSettings(data="demo=1?split=validation,odd.jsonl=1?image=photo&prompt=Say it."), "test", 4)
    assert [one.id.split("-")[0] for one in found] == ["validation", "odd.jsonl line 1", "validation", "odd.jsonl line 2"]
    assert found[1].question == "Say it."


def test_bad_images_count_in_their_own_source(here: Path) -> None:
    rows = [
        {"image": "gone.png" if number == 1 else "p.png", "question": "what?", "answer": f"d{number}"} for number in range(9)
    ]
    lines(here / "d.jsonl", rows)
    settings = DataSettings(data="a.jsonl=1,d.jsonl=1", max_bad="1")
    found = data.load(settings, "test", 8, check=True)
    assert [one.answer for one in found if one.answer[0] == "d"] == ["d0", "d2", "d3", "d4"]
    with pytest.raises(InputError, match=r"^d.jsonl: 1 unreadable image"):
        data.load(settings.model_copy(update={"max_bad": "1%"}), "test", 8, check=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jsonl=1,b.jsonl", "give every source a weight, or none"),
        ("a.jsonl=0,b.jsonl=1", "the weight '0' is not a positive number"),
        ("a.jsonl=-1,b.jsonl=1", "the weight '-1' is not a positive number"),
        ("a.jsonl=much,b.jsonl=1", "the weight 'much' is not a positive number"),
        ("a.jsonl=nan,b.jsonl=1", "the weight 'nan' is not a positive number"),
        ("a.jsonl,,b.jsonl", "a source has no name"),
        ("a.jsonl?speed=9", "unknown key 'speed'"),
        ("a.jsonl?split", "must be key=value"),
    ],
)
def test_what_cannot_be_read(here: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load(text, "test")


def test_a_name_that_exists_is_taken_as_it_stands(here: Path) -> None:
    for name in ("x=1.jsonl", "a,b.jsonl", "w?split=x.jsonl"):
        (here / name).write_bytes((here / "a.jsonl").read_bytes())
    (here / "year=2020").mkdir()
    (here / "year=2020" / "d.jsonl").write_bytes((here / "a.jsonl").read_bytes().replace(b"p.png", b"../p.png"))
    for name in ("x=1.jsonl", "a,b.jsonl", "w?split=x.jsonl", "year=2020", "year=2020/d.jsonl"):
        assert len(answers(name)) == 20
    assert len(answers("x=1.jsonl=1,year=2020=3", 12)) == 12


def test_shares_and_epochs() -> None:
    assert share(128, [0.7, 0.3]) == [90, 38]
    assert share(10, [0.14, 0.86]) == [1, 9]
    assert share(3, [1, 1, 1, 1]) == [1, 1, 1, 0]
    assert sum(share(1000, [0.1, 0.2, 0.3, 0.15])) == 1000
    assert epoch_counts([20, 10], [2, 1]) == [20, 10]
    assert epoch_counts([7, 10], [0.7, 0.1]) == [70, 10]
    assert interleave([2, 4]).tolist() == [1, 0, 1, 1, 0, 1]
