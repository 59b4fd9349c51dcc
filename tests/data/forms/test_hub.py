"""Data sets of `datasets`: folders on the disk, and a hub id; here the hub is a folder, for tests have no network."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.data import material
from tests.data.material import Asked, expected, seen
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.settings import DataSettings


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def hub(tmp_path: Path, asked: list[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    """`some/questions` on the hub is a folder of Parquet files."""
    folder, load = material.parquet_folder(tmp_path / "hub", asked), datasets.load_dataset

    def fetch(name: str, *arguments: Any, **options: Any) -> Any:
        assert name == "some/questions"
        return load(str(folder), *arguments, cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # seconds after each stream
    monkeypatch.chdir(tmp_path)


def made(asked: list[Asked]) -> datasets.Dataset:
    kinds = sorted({one.kind for one in asked})
    columns: dict[str, list[Any]] = {name: [one.row[name] for one in asked] for name in ("question", "answer")}
    columns["image"] = [{"bytes": one.content, "path": None} for one in asked]
    columns["kind"] = [kinds.index(one.kind) for one in asked]
    text, kind = datasets.Value("string"), datasets.ClassLabel(names=kinds)
    features = {"image": datasets.Image(), "question": text, "answer": text, "kind": kind}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({name: features[name] for name in columns}))


def test_a_saved_data_set_gives_the_same_samples(tmp_path: Path, asked: list[Asked]) -> None:
    made(asked).save_to_disk(tmp_path / "one")
    found = data.load(str(tmp_path / "one"), "test")
    assert seen(found) == expected(asked)
    assert seen([found[4], found[-1]]) == [expected(asked)[4], expected(asked)[5]]
    with pytest.raises(InputError, match="has no splits: leave --split out"):
        data.load(f"{tmp_path / 'one'}?split=train", "test")


def test_a_saved_data_set_has_splits(tmp_path: Path, asked: list[Asked]) -> None:
    datasets.DatasetDict(train=made(asked[:2]), secret=made(asked)).save_to_disk(tmp_path / "two")
    assert seen(data.load(str(tmp_path / "two"), "train")) == expected(asked)[:2]
    assert seen(data.load(f"{tmp_path / 'two'}?split=secret", "train")) == expected(asked)
    with pytest.raises(InputError, match="has no split test: it has train, secret; choose one with --split"):
        data.load(str(tmp_path / "two"), "test")


def test_bad_images_of_a_saved_data_set(tmp_path: Path, asked: list[Asked]) -> None:
    broken = [Asked(one.name, b"x" if one.name == "001.jpg" else one.content, **one.row) for one in asked]
    made(broken).save_to_disk(tmp_path / "one")
    with pytest.raises(InputError, match=r"one row 1: image in row 1 of .* is not a readable image"):
        data.load(str(tmp_path / "one"), "test", check=True)
    good = data.load(DataSettings(data=str(tmp_path / "one"), max_bad="1"), "test", check=True)
    assert seen(good) == [expected(asked)[number] for number in (0, 2, 3, 4, 5)]


@pytest.mark.usefixtures("hub")
def test_a_hub_id_is_downloaded_and_has_splits(asked: list[Asked]) -> None:
    assert seen(data.load("some/questions", "test")) == expected(asked)
    assert seen(data.load("some/questions?split=train", "test")) == expected(asked)[:1]
    with pytest.raises(InputError, match=r"some/questions: Unknown split \"secret\"\. Should be one of .*train"):
        data.load(DataSettings(data="some/questions", split="secret"), "test")
    with pytest.raises(InputError, match="BuilderConfig 'odd' not found"):
        data.load("some/questions?config=odd", "test")


@pytest.mark.usefixtures("hub")
def test_a_stream_gives_so_many_in_the_seeds_order(asked: list[Asked]) -> None:
    settings = DataSettings(data="some/questions", stream=True)
    found = [seen(data.load(settings, "test", 4, check=True, seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert all(len(one) == 4 and set(one) <= set(expected(asked)) for one in found)
    with pytest.raises(InputError, match="some/questions has only 6 of the 7 samples that are needed"):
        data.load(settings, "test", 7)
    with pytest.raises(InputError, match="--stream needs the number of samples of some/questions: add --samples or --count"):
        data.load(settings, "test")


def test_only_the_hub_is_streamed(tmp_path: Path, asked: list[Asked]) -> None:
    source = DataSettings(data=str(material.one_tar(tmp_path, asked)), stream=True)
    with pytest.raises(InputError, match="is not a hub id: --stream is for data sets of the hub"):
        data.load(source, "test", 2)


@pytest.mark.parametrize("stream", [False, True])
def test_offline_it_says_so_in_one_line(stream: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvironmentLacks, match="no data set at some/thing, and the hub cannot be reached") as caught:
        data.load(DataSettings(data="some/thing", stream=stream), "train", 4)
    assert "\n" not in str(caught.value)
