"""Metrics: hand-computed scores, and the packages that the field itself uses, where they are installed."""

import random

import pytest

from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.data.questions.columns import Columns, texts
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import metrics, score
from vlmc.toolchain.evaluate.metrics import anls, exact, normalised, scores, vqa

WORDS = "the a None zero two dont can't isnt 3.5 1,000 red. blue, (yes) 7/8 well-known hes youve $5 u.s. n/a wont a.b dog's"


def sample(*references: str, kind: str = "all") -> Sample:
    return Sample("1", (), "?", references[0], kind, references=references if len(references) > 1 else ())


def test_exact_match_takes_any_reference() -> None:
    assert exact(" Two. ", ["3", "two"]) == 1
    assert exact("twos", ["3", "two"]) == 0


@pytest.mark.parametrize(
    ("matches", "expected"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],  # over the ten ways to leave one annotator out
)
def test_vqa_accuracy_is_that_of_ten_annotators(matches: int, expected: float) -> None:
    assert vqa("yes", ["yes"] * matches + ["no"] * (10 - matches)) == pytest.approx(expected)


def test_vqa_with_few_references_is_right_or_wrong() -> None:
    assert vqa("The two!", ["2"]) == 1
    assert vqa("3", ["2", "2", "4"]) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red, ball.", "red ball"),
        ("ten", "10"),
        ("None", "0"),
        ("3.5", "3.5"),
        ("dont", "don't"),
        ("7/8", "7 8"),
        ("1,000", "1000"),
    ],
)
def test_answers_are_normalised_as_the_challenge_does(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_normalisation_is_that_of_lmms_eval() -> None:
    judge = pytest.importorskip("lmms_eval.tasks._task_utils.vqa_eval_metric").EvalAIAnswerProcessor()
    draw = random.Random(0)
    for _ in range(2000):
        text = " ".join(draw.choices(WORDS.split(), k=draw.randint(1, 3))) + draw.choice(("", "?", "!", ".", ","))
        assert normalised(text) == judge(text), text


def test_anls_forgives_half_of_the_letters() -> None:
    assert anls("Invoce", ["x", "invoice"]) == pytest.approx(1 - 1 / 7)
    assert anls("ab", ["ac"]) == 0.5
    assert anls("abc", ["axy"]) == 0
    assert anls("", [""]) == 1
    assert metrics._distance("kitten", "sitting") == 3


def test_kinds_are_means_of_the_metric() -> None:
    found = score([sample("ac", kind="a"), sample("abc", kind="b")], ["ab", "abc"], "anls")
    assert (found.by_kind, found.overall) == ({"a": 0.5, "b": 1.0}, 0.75)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("red", ("red",)),
        (["red", " ", 3], ("red", "3")),
        ([{"answer": "a", "answer_id": 1}, {"answer": "b"}], ("a", "b")),
        ({"text": ["x", "y"]}, ("x", "y")),
        (None, ()),
    ],
)
def test_every_answer_of_a_row_is_a_reference(value: object, expected: tuple[str, ...]) -> None:
    assert texts(value) == expected


def test_vqav2s_rows_have_one_answer_and_ten_references() -> None:
    columns = Columns("image", None, "question", "multiple_choice_answer", "answers", None, None)
    answers = [{"answer": "yes"}] * 7 + [{"answer": "no"}] * 3
    (asked,) = columns.asked({"image": "a.png", "question": "?", "multiple_choice_answer": "yes", "answers": answers}, "")
    assert asked.answer == "yes"
    assert asked.references == ("yes",) * 7 + ("no",) * 3


def test_cider_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert run(["eval", "demo", "--metric", "cider"]) == 3
    assert "pip install pycocoevalcap" in capsys.readouterr().err
    monkeypatch.setattr(metrics, "find_spec", lambda name: object())
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="needs Java"):
        metrics.check_metric("cider")


@pytest.mark.slow
def test_cider_is_that_of_the_coco_tools() -> None:
    pytest.importorskip("pycocoevalcap")
    try:
        metrics.check_metric("cider")
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    asked = [sample("a red ball on the grass.", "Red ball, on grass"), sample("two dogs run", "dogs are running")]
    right, wrong = scores("cider", asked, ["a red ball on the grass", "a house"])
    assert right > 1
    assert wrong == 0
