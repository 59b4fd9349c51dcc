"""The part of a user's own data that training does not see."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sequences.lazy import origin_of
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.feeding.holding_out import hold_out
from vlmc.toolchain.settings import DataSettings, RepairSettings
from vlmc.toolchain.stages.repair import Repair


def questions(count: int, each: int = 1) -> list[Sample]:
    """Return questions, `each` of them about one image's file, which is never opened."""
    (one,) = material.samples(1)
    return [replace(one, id=f"s{index}", images=(Path(f"{index // each}.png"),)) for index in range(count)]


def ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def written(folder: Path, count: int, *bad: int, each: int = 1) -> Path:
    """Write questions about small images, some of which cannot be read."""
    for number in range(count // each):
        path = folder / f"{number}.png"
        path.write_text("none") if number in bad else Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    asked = [{"image": f"{index // each}.png", "question": "what digit ?", "answer": f"{index}"} for index in range(count)]
    (folder / "mine.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in asked))
    return folder / "mine.jsonl"


@pytest.mark.parametrize(("count", "part", "held"), [(100, "5%", 5), (20_000, "5%", 500), (30, "7", 7), (40, "2.5%", 1)])
def test_a_part_is_held_out_and_the_rest_is_trained_on(count: int, part: str, held: int) -> None:
    samples = questions(count)
    parts = hold_out(samples, part, seed=0)
    assert len(parts.validation) == held
    assert sorted([*ids(parts.train), *ids(parts.validation)]) == sorted(ids(samples))
    assert parts.notice is None


def test_the_seed_decides_which() -> None:
    one, again, other = (ids(hold_out(questions(200), "5%", seed).validation) for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize(("count", "part"), [(39, "5%"), (60, "1%")])
def test_few_samples_are_all_trained_on_and_that_is_said(count: int, part: str) -> None:
    parts = hold_out(questions(count), part, 0)
    assert (len(parts.train), len(parts.validation)) == (count, 0)
    assert parts.notice is not None
    assert f"{count} samples: too few to hold {part} out, all are trained on" in parts.notice


@pytest.mark.parametrize("part", ["0", "0%"])
def test_it_can_be_turned_off(part: str) -> None:
    assert hold_out(questions(100), part, 0) == (questions(100), (), None)


def test_all_of_the_data_is_never_held_out() -> None:
    with pytest.raises(InputError, match="--hold-out 50 leaves nothing of 50 samples to train on"):
        hold_out(questions(50), "50", 0)


def test_a_picture_is_on_one_side_with_all_its_questions() -> None:
    parts = hold_out(questions(100, each=3), "10", 0)
    train, held = ({sample.images for sample in some} for some in (parts.train, parts.validation))
    assert not train & held
    assert (len(parts.train), len(parts.validation)) in {(91, 9), (90, 10)}


def test_pictures_that_have_too_many_questions_are_not_held_out() -> None:
    parts = hold_out(questions(60, each=30), "5%", 0)
    assert len(parts.train) == 60
    assert parts.notice is not None
    assert "too few to hold some out" in parts.notice


def test_a_sample_of_several_pictures_of_which_one_is_held_out_is_in_neither_part() -> None:
    samples = questions(60)
    both = replace(samples[0], id="both", images=(Path("elsewhere.png"), *(one.images[0] for one in samples)))
    parts = hold_out([*samples, both], "5", 3)
    assert len(parts.validation) == 5
    assert "both" not in ids(parts.train)
    assert len(parts.train) == 55


def test_mixed_and_repeated_data_does_not_leak(tmp_path: Path) -> None:
    """The shorter of two sources comes again and again in an epoch of their mixture."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = f"{written(tmp_path / 'a', 60)}=0.8,{written(tmp_path / 'b', 10)}=0.2"
    samples = data.load(DataSettings(data=mixed), "train")
    assert len(samples) > 70
    parts = hold_out(samples, "20%", 0)
    train, held = ({sample.images for sample in some} for some in (parts.train, parts.validation))
    assert held
    assert not train & held


def test_a_picture_that_cannot_be_read_is_never_replaced_by_one_of_the_other_part(tmp_path: Path) -> None:
    bad = range(0, 60, 2)
    samples = data.load(DataSettings(data=str(written(tmp_path, 60, *bad)), max_bad="100%"), "train")
    parts = hold_out(samples, "20", 0)
    assert 0 < len(parts.validation) < 20
    places = [origin_of(parts.validation, index)[1] for index in range(len(parts.validation))]
    assert not set(places) & set(bad)
    assert not {sample.images for sample in parts.train} & {sample.images for sample in parts.validation}


@pytest.mark.slow
def test_repair_holds_own_data_out_by_itself_and_the_history_says_so(tmp_path: Path) -> None:
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    path = written(tmp_path, 80, each=2)

    def measures(**options: object) -> dict[str, object]:
        settings = RepairSettings(data=str(path), steps=1, batch=2, rank=2, lr=1e-2, method="sparse-lora", **options)  # type: ignore[arg-type]
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        return dict(Repair(settings).run(source, out).manifest.history[-1].measures)

    found = measures()
    assert (found["trained_on"], found["held_out"], found["best_step"]) == (76, 4, 1)
    assert "held_out" not in measures(hold_out="0")
    assert "held_out" not in measures(validation=str(path))
    assert "best_validation" in measures(validation=str(path), validation_count=3)


@pytest.mark.integration
def test_the_demo_is_not_split(tmp_path: Path) -> None:
    source: SavedModel = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    options = material.OPTIONS.model_copy(update={"steps": 1})
    measures = Repair(options, samples=material.samples(50)).run(source, tmp_path / "out").manifest.history[-1].measures
    assert not {"held_out", "best_validation"} & measures.keys()
