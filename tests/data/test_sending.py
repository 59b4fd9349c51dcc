"""Every form of data can be sent to another process, before and after some of it was read."""

import pickle
from pathlib import Path

import pytest

from tests.data import material
from tests.data.forms.test_hub import made
from tests.data.material import FORMS, Asked, expected, seen
from vlmc.toolchain import data
from vlmc.toolchain.data.forms.hub import TakenRows
from vlmc.toolchain.settings import DataSettings


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    return material.six(tmp_path_factory.mktemp("six"))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_or_folder(form: str, tmp_path: Path, asked: list[Asked]) -> None:
    found = data.load(DataSettings(data=str(FORMS[form](tmp_path, asked))), "test")
    sent = pickle.dumps(found)
    assert seen(pickle.loads(sent)) == expected(asked) == seen(found)
    assert len(pickle.dumps(found)) < len(sent) + 1000, "what was read is not sent along"
    assert seen(pickle.loads(pickle.dumps(found))[1:3]) == expected(asked)[1:3]


def test_a_saved_data_set(tmp_path: Path, asked: list[Asked]) -> None:
    made(asked).save_to_disk(tmp_path / "one")
    found = data.load(str(tmp_path / "one"), "test")
    assert seen(pickle.loads(pickle.dumps(found))) == expected(asked)


def test_a_stream_and_the_demo(asked: list[Asked]) -> None:
    rows = [one.row for one in asked]
    again = pickle.loads(pickle.dumps(TakenRows("some/questions", rows)))
    assert [again.read(index, ()) for index in range(len(rows))] == rows
    demo = data.load("demo", "test", 6)
    assert seen(pickle.loads(pickle.dumps(demo))) == seen(demo)
