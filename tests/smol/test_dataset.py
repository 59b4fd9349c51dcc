"""The data of `smol`: deterministic, right, unambiguous, and honest about its splits."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin, data
from vlmc.toolchain.demo.glyphs import SPLITS, Split, labels, split_indices
from vlmc.toolchain.smol.dataset import draw_asked, samples
from vlmc.toolchain.smol.emoji import EMOJI
from vlmc.toolchain.smol.questions import KINDS
from vlmc.toolchain.smol.scenes import COLOURS, POSITIONS, WORDS, Digit, Drawn, Scene, draw_scene, paint
from vlmc.toolchain.smol.wordings import WORDINGS


def place_in(text: str) -> int:
    """Return the only cell that a text names."""
    (place,) = [cell for cell, words in enumerate(POSITIONS) if words in text]
    return place


def meant(question: str, scene: Scene) -> list[tuple[int, Drawn | Digit]]:
    """Return the things of a scene that a question may mean by name."""
    found = [(cell, thing) for cell, thing in scene.things() if re.search(rf"\bthe {thing.name}\b", question)]
    if found:
        return found
    return [(cell, digit) for cell, digit in scene.digits() if re.search(rf"\bthe {WORDS[digit.value]}\b", question)]


def check(kind: str, scene: Scene, question: str, answer: str) -> None:
    """Assert that an answer is the only right one, by what the words of the question say."""
    if kind == "name":
        thing = scene.cells[place_in(question)]
        assert answer == ("nothing" if thing is None else thing.phrase)
    elif kind == "sort":
        thing = scene.cells[place_in(question)]
        expected = "a digit" if isinstance(thing, Digit) else EMOJI[thing.number].sort if thing else None
        assert answer == expected
    elif kind == "colour":
        digits = [digit for _, digit in scene.digits()]
        if "the digit at the" in question:
            digits = [digit for cell, digit in scene.digits() if cell == place_in(question)]
        elif "the digit" not in question:
            digits = [digit for digit in digits if re.search(rf"\b{WORDS[digit.value]}\b", question)]
        assert [digit.colour for digit in digits] == [answer]
    elif kind == "where":
        ((cell, _),) = meant(question, scene)
        assert answer == POSITIONS[cell]
    elif kind == "count":
        (noun,) = set(re.findall(r"(?:\w+ )?(?:things|digits|animals)", question))
        things = [thing for _, thing in scene.things()]
        if "animals" in noun:
            things = [thing for thing in things if isinstance(thing, Drawn) and EMOJI[thing.number].sort == "an animal"]
        elif "digits" in noun:
            colour = noun.split()[0]
            things = [one for one in things if isinstance(one, Digit) and (colour not in COLOURS or one.colour == colour)]
        assert answer == WORDS[len(things)]
    elif kind == "exists":
        phrases = [thing.phrase for _, thing in scene.things()]
        inside = any(re.search(rf"\b{phrase}\b", question) for phrase in phrases)
        assert answer == ("yes" if inside else "no")
    else:
        parts = [f"{thing.phrase} at the {POSITIONS[cell]}" for cell, thing in scene.things()]
        assert answer == f"The image shows {', '.join(parts[:-1])} and {parts[-1]}."


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_scene_and_nothing_is_ambiguous(kind: str) -> None:
    for number in range(60):
        scene, (question, answer) = draw_asked("validation", kind, number)
        check(kind, scene, question, answer)


def test_the_same_seed_gives_the_same_sample() -> None:
    for one, other in zip(samples("test", 24), samples("test")[:24], strict=True):
        assert (one.id, one.question, one.answer, one.kind) == (other.id, other.question, other.answer, other.kind)
        assert one.load_image().tobytes() == other.load_image().tobytes()


def test_a_known_sample_stays_as_it_is() -> None:
    """Golden: printed by `samples("test")[1]`; when it changes, every published accuracy is void."""
    sample = samples("test")[1]
    assert (sample.id, sample.question, sample.answer) == (
        "test-sort-00000",
        "What type of thing is top left?",
        "a digit",
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_belongs_to_one_split_and_so_does_its_handwriting(split: Split) -> None:
    random, allowed = Random(0), set(split_indices(split))
    for _ in range(100):
        scene = draw_scene(random, split)
        assert scene.split == split
        for _, digit in scene.digits():
            assert digit.sample in allowed
            assert labels()[digit.sample] == digit.value


def test_no_split_gets_the_wordings_of_another() -> None:
    for kind in KINDS:
        own = [WORDINGS[kind].train, WORDINGS[kind].validation, WORDINGS[kind].test]
        assert all(own)
        assert not any(set(one) & set(other) for one, other in combinations(own, 2))
        assert WORDINGS[kind].of("train") == (WORDINGS[kind].train,)
    captions = {split: [sample.question for sample in samples(split, 100, ["caption"])] for split in SPLITS}
    assert set(captions["train"]) == set(WORDINGS["caption"].train)
    held_out = sum(question in WORDINGS["caption"].test for question in captions["test"])
    assert 30 < held_out < 70


@pytest.mark.integration
def test_answers_are_balanced() -> None:
    for kind in KINDS:
        counted = Counter(draw_asked("test", kind, number)[1][1].split(",")[0] for number in range(100))
        assert max(counted.values()) / counted.total() <= 0.65, f"{kind}: {counted}"


def test_a_scene_is_painted_where_it_says() -> None:
    random = Random(1)
    for _ in range(10):
        scene = draw_scene(random, "train")
        bare = paint(Scene((None,) * 4, scene.background))
        for cell in range(4):
            box = (cell % 2 * 32, cell // 2 * 32, cell % 2 * 32 + 32, cell // 2 * 32 + 32)
            assert (paint(scene).crop(box).tobytes() != bare.crop(box).tobytes()) == (scene.cells[cell] is not None)


def test_smol_is_a_name_of_data(tmp_path: Path) -> None:
    assert [sample.id for sample in data.load("smol", "validation", 3)] == [
        "validation-name-00000",
        "validation-sort-00000",
        "validation-colour-00000",
    ]
    path = builtin.data_sets()["smol"].write(tmp_path / "set", "test", 7)
    assert [sample.answer for sample in data.load(str(path), "test")] == [sample.answer for sample in samples("test", 7)]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no split"):
        samples("all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no kind sum"):
        samples("test", 1, ["sum"])
    with pytest.raises(InputError, match="give a count"):
        samples("test", -1)
