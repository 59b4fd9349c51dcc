"""Batches encoded ahead: whoever encodes them, the same ones in the same order, with the same complaints."""

import json
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.repair import material
from tests.repair.training.test_trainer import spoil_teacher, trainer
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.feeding.ahead import Feed, _Encoding
from vlmc.toolchain.repair.feeding.batches import Batches
from vlmc.toolchain.settings import DataSettings, RepairSettings

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
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


def feed(source: SavedModel, *, samples: Any = None, group: OneOf | None = None, **options: Any) -> Feed:
    return Feed(batches(source, samples), group or OneOf(), OPTIONS.model_copy(update=options))  # type: ignore[arg-type]


def contents(some: Feed, steps: range = range(7)) -> list[Any]:
    """Return all that the feed gives for these steps, as values that can be compared."""
    found = [(step, one) for step in steps for one in some.at(step)]
    some.close()
    tensors = [{**one.batch.inputs, "K": one.batch.columns_K, "N": one.batch.answers_N} for _, one in found]
    texts = [{name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in one.items()} for one in tensors]
    return [(step, list(one.indices), text) for (step, one), text in zip(found, texts, strict=True)]


class Remote:
    """Stands in for the DataLoader's processes: each has a copy of what it was sent, returns copies, and says nothing."""

    def __init__(self, feed: Feed, workers: int) -> None:
        sent = pickle.dumps(_Encoding(feed.batches.shared_by(workers)))
        self.workers: list[_Encoding] = [pickle.loads(sent) for _ in range(workers)]
        self.indices = feed._indices(0)

    def __iter__(self) -> Iterator[Any]:
        for number, indices in zip(count(), self.indices, strict=False):
            logging.disable(logging.WARNING)
            encoded = self.workers[number % len(self.workers)][indices]
            logging.disable(logging.NOTSET)
            yield pickle.loads(pickle.dumps(encoded))


def test_a_step_is_split_among_processes_and_passes(source: SavedModel) -> None:
    plain = batches(source)
    for rank, places in enumerate((slice(2), slice(2, 5))):
        passes = feed(source, group=OneOf(2, rank)).at(3)
        assert len(passes) == 2
        assert [index for one in passes for index in one.indices] == plain.indices(3)[places]
        for one in passes:
            alone = batches(source).of(one.indices)
            assert torch.equal(one.batch.answers_N, alone.answers_N)
            assert all(torch.equal(one.batch.inputs[name], alone.inputs[name]) for name in alone.inputs)


def test_it_goes_on_from_any_step(source: SavedModel) -> None:
    some, other = feed(source), feed(source)
    forwards = contents(some)
    assert contents(other, range(4, 7)) == [one for one in forwards if one[0] >= 4]
    assert contents(other, range(2)) == [one for one in forwards if one[0] < 2]


def test_what_is_sent_to_a_process_holds_no_encoded_samples(source: SavedModel) -> None:
    plain = batches(source)
    some = Batches(plain.samples, plain.encoder, plain.size, plain.seed, room=1_000_000)
    some.at(0)
    assert some._cache
    sent = some.shared_by(4)
    assert (sent._cache, sent.room) == ({}, some.room // 4)
    before = sent.of([1, 2])
    assert torch.equal(before.answers_N, some.of([1, 2]).answers_N)


def bad_images(folder: Path, *bad: int) -> Path:
    """Write eight questions about as many pictures, some of which are none."""
    for number in range(8):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    for number in bad:
        (folder / f"{number}.png").write_text("no picture")
    asked = [{"image": f"{number}.png", "question": "what digit ?", "answer": "seven"} for number in range(8)]
    path = folder / "d.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in asked))
    return path


@pytest.mark.parametrize("limit", ["3", "2"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bad_pictures_are_counted_over_all_processes(
    workers: int, limit: str, source: SavedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No process alone sees all three of them, and some are seen by several; another source's are counted apart."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = f"{bad_images(tmp_path / 'a', 1, 4, 6)},{bad_images(tmp_path / 'b', 3)}"
    told = []
    for remote in (False, True):
        caplog.clear()
        some = feed(source, samples=data.load(DataSettings(data=mixed, max_bad=limit), "train"), accumulate=1, steps=5)
        some._source = iter(Remote(some, workers)) if remote else None
        error = ""
        try:
            contents(some, range(5))
        except InputError as caught:
            error = str(caught)
        told.append((error, [record.getMessage() for record in caplog.records]))
    assert told[0] == told[1]
    assert ("3 unreadable images, but --max-bad 2 of 8 allows 2: " in told[1][0]) == (limit == "2")
    assert len(told[1][1]) == (4 if limit == "3" else 3)  # each once; the one too many is in the error


def test_wrong_samples_are_told_as_they_are(source: SavedModel) -> None:
    samples = [*material.samples(6), replace(material.samples(1)[0], id="s6", answer=" ")]
    messages = []
    for remote in (False, True):
        some = feed(source, samples=samples)
        some._source = iter(Remote(some, 2)) if remote else None
        with pytest.raises(InputError, match="sample s6 has an answer without tokens") as caught:
            contents(some)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def lost(error: Exception) -> Iterator[Any]:
    raise error
    yield


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        RuntimeError("Pin memory thread exited unexpectedly"),
        ConnectionResetError("what it encoded went with it"),
        EOFError(),
    ],
)
def test_a_lost_process_is_explained(error: Exception, source: SavedModel) -> None:
    some = feed(source, workers=3)
    some._source = lost(error)
    with pytest.raises(EnvironmentLacks, match=r"/dev/shm\) ran out: take fewer than --workers 3, or 0"):
        some.at(0)


def test_other_errors_are_not(source: SavedModel) -> None:
    some = feed(source)
    some._source = lost(RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="CUDA error"):
        some.at(0)


class TestProcesses:
    """With real processes, which take seconds to start."""

    pytestmark = pytest.mark.slow

    @pytest.mark.parametrize("group", [OneOf(), OneOf(2, 1)])
    def test_the_same_batches_from_any_step(self, group: OneOf, source: SavedModel) -> None:
        expected = contents(feed(source, group=group))
        assert contents(feed(source, group=group, workers=2)) == expected
        assert contents(feed(source, group=group, workers=1), range(4, 7)) == [one for one in expected if one[0] >= 4]
        assert not multiprocessing.active_children()

    def test_a_run_that_breaks_off_leaves_no_process(self, source: SavedModel) -> None:
        some = trainer(source, material.OPTIONS.model_copy(update={"workers": 2}))
        spoil_teacher(some)
        with pytest.raises(CheckFailed, match="10 steps in a row"):
            some.train(None, Progress(quiet=True))
        assert not multiprocessing.active_children()

    def test_training_draws_no_random_numbers(self, source: SavedModel) -> None:
        some = trainer(source, material.OPTIONS.model_copy(update={"workers": 1, "steps": 2}))
        before = torch.random.get_rng_state()
        some.train(None, Progress(quiet=True))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_killed_process_is_one_line(self, source: SavedModel) -> None:
        some = feed(source, workers=2, steps=1000)
        some.at(0)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(EnvironmentLacks, match="has ended"):
            contents(some, range(1, 1000))
        some.close()
        assert not multiprocessing.active_children()

    @pytest.mark.parametrize("wrong", ["pictures", "answer"])
    def test_wrong_data_is_the_same_line(
        self, wrong: str, source: SavedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        material.pruned(source, tmp_path / "pruned")
        path = bad_images(tmp_path, *((1, 4, 6) if wrong == "pictures" else ()))
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
        assert not multiprocessing.active_children()
