"""The demo's data: deterministic, right, balanced, and honest about its splits."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from random import Random

import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain.demo.dataset import draw_asked, samples
from vlmc.toolchain.demo.glyphs import SPLITS, coverage_NHW, labels, split_by_digit, split_indices
from vlmc.toolchain.demo.questions import CAPTION, KINDS
from vlmc.toolchain.demo.scenes import COLOURS, POSITIONS, WORDS, Digit, Scene, draw_scene, paint

ALL_KINDS = (*KINDS, CAPTION)


def digits(scene: Scene) -> dict[str, Digit]:
    """Return what lies where, by the words of the place."""
    return {place: digit for place, digit in zip(POSITIONS, scene.cells, strict=True) if digit is not None}


def the_one(candidates: Iterable[str]) -> str:
    """Return the only candidate: a question that points at none or at two is ambiguous."""
    (only,) = list(candidates)
    return only


def referred(name: str, scene: Scene) -> str:
    """Return the place that a phrase such as "the red digit", "the seven" or "the top left digit" means."""
    phrase = name.removeprefix("the ").removesuffix(" digit")
    there = digits(scene)
    if phrase in POSITIONS:
        return the_one(place for place in there if place == phrase)
    if phrase in COLOURS:
        return the_one(place for place, digit in there.items() if digit.colour == phrase)
    return the_one(place for place, digit in there.items() if WORDS[digit.value] == phrase)


def solve(question: str, scene: Scene) -> str:
    """Answer a question from the scene, by reading the words alone."""
    there = digits(scene)
    values = [digit.value for digit in there.values()]
    match question.rstrip("?.").split():
        case ["what", "digit", "is", *place]:
            digit = there.get(" ".join(place))
            return WORDS[digit.value] if digit else "none"
        case ["what", "is", "the", "largest", "digit"]:
            return WORDS[max(values)]
        case ["what", "is", "the", "smallest", "digit"]:
            return WORDS[min(values)]
        case ["what", "is", "the", "sum", "of", *rest]:
            return WORDS[sum(there[referred(name, scene)].value for name in " ".join(rest).split(" and "))]
        case ["what", "is", *name]:
            return WORDS[there[referred(" ".join(name), scene)].value]
        case ["what", "colour", "is", *name]:
            return there[referred(" ".join(name), scene)].colour
        case ["where", "is", *name]:
            return referred(" ".join(name), scene)
        case ["how", "many", "digits", "are", "there"]:
            return WORDS[len(there)]
        case ["how", "many", colour, "digits", "are", "there"]:
            return WORDS[sum(digit.colour == colour for digit in there.values())]
        case ["is", "there", "a", colour, word]:
            found = any(digit.colour == colour and WORDS[digit.value] == word for digit in there.values())
            return "yes" if found else "no"
        case ["is", *name, "even", "or", "odd"]:
            return ("even", "odd")[there[referred(" ".join(name), scene)].value % 2]
        case ["is", *rest]:
            first, second = (there[referred(name, scene)].value for name in " ".join(rest).split(" larger than "))
            assert first != second, "a comparison of equals has no fair answer"
            return "yes" if first > second else "no"
        case ["describe", "the", "picture"]:
            return " and ".join(f"a {digit.colour} {WORDS[digit.value]} {place}" for place, digit in there.items())
        case _:
            raise AssertionError(f"no such question is expected: {question}")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_answers_follow_from_the_scene_and_nothing_is_ambiguous(kind: str) -> None:
    for number in range(300):
        scene, (question, answer) = draw_asked("validation", kind, number)
        assert solve(question, scene) == answer, question


def test_the_same_seed_gives_the_same_sample() -> None:
    first, again = samples("test", 40), samples("test")
    for one, other in zip(first, again[:40], strict=True):
        assert (one.id, one.question, one.answer, one.kind) == (other.id, other.question, other.answer, other.kind)
        assert one.load_image().tobytes() == other.load_image().tobytes()


def test_a_known_sample_stays_as_it_is() -> None:
    """Golden: printed by `samples("test")[8]`; when it changes, every published accuracy is void."""
    sample = samples("test")[8]
    assert (sample.id, sample.question, sample.answer) == (
        "test-sum-00000",
        "what is the sum of the bottom right digit and the top left digit?",
        "seven",
    )


def test_kinds_do_not_move_each_other() -> None:
    alone = samples("test", 5, ["sum"])
    among = [sample for sample in samples("test", 50) if sample.kind == "sum"]
    assert [sample.id for sample in alone] == [sample.id for sample in among]
    assert [sample.question for sample in alone] == [sample.question for sample in among]


def test_no_handwriting_is_in_two_splits() -> None:
    parts = [set(split_indices(split)) for split in SPLITS]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == len(labels()) == 1797


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_the_handwriting_of_their_split(split: str) -> None:
    random, allowed = Random(0), set(split_indices(split))
    for _ in range(200):
        scene = draw_scene(random, split)
        for cell in scene.present:
            assert scene.digit(cell).sample in allowed
            assert labels()[scene.digit(cell).sample] == scene.digit(cell).value


def test_no_two_samples_of_different_splits_look_the_same() -> None:
    pixels = {digit: [coverage_NHW()[i].tobytes() for i in split_indices(digit)] for digit in SPLITS}
    assert not set(pixels["test"]) & (set(pixels["train"]) | set(pixels["validation"]))


def test_every_split_has_every_digit() -> None:
    assert all(len(group) >= 10 for split in SPLITS for group in split_by_digit(split))


def test_the_default_test_split_is_balanced() -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(200):
        for kind in KINDS:
            answers[kind][draw_asked("test", kind, number)[1][1]] += 1
    for kind, counted in answers.items():
        limit = 0.6 if len(counted) == 2 else 0.45
        assert max(counted.values()) / counted.total() <= limit, f"{kind}: {counted}"
    assert len(samples("test")) == 2000
    assert Counter(sample.kind for sample in samples("test", 100)) == dict.fromkeys(KINDS, 10)


def test_training_has_captions_and_the_others_have_not() -> None:
    assert CAPTION in {sample.kind for sample in samples("train", len(ALL_KINDS))}
    assert CAPTION not in {sample.kind for sample in samples("test", 30)}


def test_a_scene_is_painted_where_it_says() -> None:
    scene = draw_scene(Random(1), "train")
    pixels = paint(scene)
    for cell in range(4):
        part = pixels[cell // 2 * 32 : cell // 2 * 32 + 32, cell % 2 * 32 : cell % 2 * 32 + 32]
        assert bool((part != scene.paper[0]).any()) == (cell in scene.present)


def test_samples_refuses_what_it_does_not_have() -> None:
    with pytest.raises(InputError, match="no kind poem"):
        samples("test", kinds=["poem"])
    with pytest.raises(InputError, match="no split"):
        samples("holdout")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="-1"):
        samples("test", -1)
    with pytest.raises(IndexError):
        samples("test", 3)[3]
