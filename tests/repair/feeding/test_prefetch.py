"""Batches encoded ahead: with any number of threads the same batches in the same order, with the same messages."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.repair import material
from tests.repair.training.test_trainer import spoil_teacher, trainer
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.toolchain import data
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.feeding import Batches, Prefetch
from vlmc.toolchain.repair.feeding.batches import SampleCache
from vlmc.toolchain.repair.feeding.prefetch import _Encoding
from vlmc.toolchain.settings import DataSettings, RepairSettings

OPTIONS = RepairSettings(steps=7, batch=5, accumulate=2)


@dataclass(frozen=True)
class OneOf:
    """A process among others that never speak."""

    size: int = 1
    rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return material.dense("llava", tmp_path_factory.mktemp("feeding") / "dense")


def batches(source: SavedModel, samples: Any = None) -> Batches:
    return Batches(samples or material.samples(7), material.encoder(source), OPTIONS.batch, seed=0)


def prefetch(source: SavedModel, *, samples: Any = None, group: OneOf | None = None, **options: Any) -> Prefetch:
    return Prefetch(batches(source, samples), group or OneOf(), OPTIONS.model_copy(update=options))  # type: ignore[arg-type]


def contents(some: Prefetch, steps: range = range(7)) -> list[Any]:
    """Return all passes of these steps, as values that can be compared."""
    found = [(step, one) for step in steps for one in some.at(step)]
    some.close()
    tensors = [{**one.batch.inputs, "K": one.batch.columns_K, "N": one.batch.answers_N} for _, one in found]
    texts = [{name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in one.items()} for one in tensors]
    return [(step, list(one.indices), text) for (step, one), text in zip(found, texts, strict=True)]


def encoders() -> list[threading.Thread]:
    """Return the threads that encode."""
    return [one for one in threading.enumerate() if one.name.startswith("encode")]


def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let earlier samples of the data take longer, so that threads finish in another order than they began."""
    answered: Callable[[Encoder, Sample], Encoded] = Encoder.answered

    def slow(self: Encoder, sample: Sample) -> Encoded:
        time.sleep(0.004 if threading.current_thread() in encoders() and sample.id in {"s0", "s1", "0", "1"} else 0)
        return answered(self, sample)

    monkeypatch.setattr(Encoder, "answered", slow)


@pytest.mark.integration
def test_a_step_is_split_among_processes_and_passes(source: SavedModel) -> None:
    plain = batches(source)
    for rank, places in enumerate((slice(2), slice(2, 5))):
        passes = prefetch(source, group=OneOf(2, rank)).at(3)
        assert len(passes) == 2
        assert [index for one in passes for index in one.indices] == plain.indices(3)[places]
        for one in passes:
            alone = batches(source).of(one.indices)
            assert torch.equal(one.batch.answers_N, alone.answers_N)
            assert all(torch.equal(one.batch.inputs[name], alone.inputs[name]) for name in alone.inputs)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_starts_at_any_step(workers: int, source: SavedModel) -> None:
    some, other = prefetch(source), prefetch(source, workers=workers)
    forwards = contents(some)
    assert contents(other, range(4, 7)) == [one for one in forwards if one[0] >= 4]
    assert contents(other, range(2)) == [one for one in forwards if one[0] < 2]


@pytest.mark.parametrize("group", [OneOf(), OneOf(2, 1)])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads_gives_the_same_batches(
    workers: int, group: OneOf, source: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(prefetch(source, group=group))
    uneven(monkeypatch)
    assert contents(prefetch(source, group=group, workers=workers)) == expected
    assert not encoders()


def test_threads_share_the_cache(source: SavedModel) -> None:
    plain = batches(source)
    cache = SampleCache(1_000_000)
    some = Prefetch(
        Batches(plain.samples, plain.encoder, plain.size, plain.seed, cache),
        OneOf(),  # type: ignore[arg-type]
        OPTIONS.model_copy(update={"workers": 2}),
    )
    expected = contents(prefetch(source))
    assert contents(some) == expected
    assert all(cache.get(index) is not None for index in range(7))
    copy = some.batches.copy()
    assert copy.cache is cache
    assert copy.encoder.processor is not some.batches.encoder.processor


def bad_images(folder: Path, *bad: int) -> Path:
    """Write eight questions about as many images, some of which cannot be read."""
    for number in range(8):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    for number in bad:
        (folder / f"{number}.png").write_text("not an image")
    asked = [{"image": f"{number}.png", "question": "what digit ?", "answer": "seven"} for number in range(8)]
    path = folder / "d.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in asked))
    return path


@pytest.mark.integration
@pytest.mark.parametrize("limit", ["3", "2"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bad_images_are_counted_over_all_threads(
    workers: int,
    limit: str,
    source: SavedModel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread sees all three of them, and some are seen by several; another source's are counted apart."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = f"{bad_images(tmp_path / 'a', 1, 4, 6)},{bad_images(tmp_path / 'b', 3)}"
    uneven(monkeypatch)
    told = []
    for threads in (0, workers):
        caplog.clear()
        samples = data.load(DataSettings(data=mixed, max_bad=limit), "train")
        some, error = prefetch(source, samples=samples, accumulate=1, steps=5, workers=threads), ""
        try:
            contents(some, range(5))
        except InputError as caught:
            error = str(caught)
        some.close()
        told.append((error, [record.getMessage() for record in caplog.records]))
    assert told[0] == told[1]
    assert ("--max-bad 2 of 8 allows 2: " in told[1][0]) == (limit == "2")
    assert len(told[1][1]) == (4 if limit == "3" else 3)  # each once; the one too many is in the error


def test_a_wrong_sample_is_the_same_message_at_the_same_step(source: SavedModel) -> None:
    samples = [*material.samples(6), replace(material.samples(1)[0], id="s6", answer=" ")]
    found = []
    for workers in (0, 2):
        some = prefetch(source, samples=samples, workers=workers)
        with pytest.raises(InputError, match="sample s6 has an answer without tokens") as caught:
            contents(some)
        found.append((str(caught.value), some._next))
        some.close()
    assert found[0] == found[1]
    assert not encoders()


def test_other_errors_come_through(source: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Encoded:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Encoder, "answered", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        prefetch(source, workers=2).at(0)
    assert not encoders()


def test_a_pass_stops_at_the_next_sample(source: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not wait until a pass of many large images is encoded."""
    encoding, encoded = _Encoding(batches(source)), list[str]()
    answered: Callable[[Encoder, Sample], Encoded] = Encoder.answered

    def stop(self: Encoder, sample: Sample) -> Encoded:
        encoded.append(sample.id)
        encoding.stopped.set()
        return answered(self, sample)

    monkeypatch.setattr(Encoder, "answered", stop)
    with pytest.raises(CancelledError):
        encoding(range(7))
    assert encoded == ["s0"]


@pytest.mark.integration
def test_a_run_that_fails_leaves_no_thread(source: SavedModel) -> None:
    some = trainer(source, material.OPTIONS.model_copy(update={"workers": 2}))
    spoil_teacher(some)
    with pytest.raises(CheckFailed, match="10 steps in a row"):
        some.train(None, Progress(quiet=True))
    assert not encoders()


@pytest.mark.integration
def test_an_interrupted_run_leaves_no_thread(source: SavedModel) -> None:
    some = trainer(source, material.OPTIONS.model_copy(update={"workers": 2}))
    with pytest.raises(material.Killed):
        some.train(None, material.KilledAt(3))
    assert not encoders()


@pytest.mark.integration
def test_training_draws_no_random_numbers(source: SavedModel) -> None:
    some = trainer(source, material.OPTIONS.model_copy(update={"workers": 1, "steps": 2}))
    before = torch.random.get_rng_state()
    some.train(None, Progress(quiet=True))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.integration
@pytest.mark.parametrize("wrong", ["images", "answer"])
def test_wrong_data_is_the_same_line(
    wrong: str, source: SavedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    material.pruned(source, tmp_path / "pruned")
    path = bad_images(tmp_path, *((1, 4, 6) if wrong == "images" else ()))
    if wrong == "answer":
        path.write_text(path.read_text().replace('"answer": "seven"', '"answer": ""', 1))
    arguments = ["repair", str(tmp_path / "pruned"), "--data", str(path), "--max-bad", "2", "--steps", "9"]
    found = []
    for workers in ("0", "2"):
        code = run([*arguments, "--batch", "2", "--workers", workers, "--out", str(tmp_path / "out"), "--quiet"])
        captured = capsys.readouterr()
        found.append((code, captured.out, captured.err))
    assert found[0] == found[1]
    assert (found[0][0], found[0][1], found[0][2].splitlines()[-1][:6]) == (2, "", "vlmc: ")
    assert not encoders()
