from pathlib import Path

import pytest

from vlmc.toolchain.data.naming import named


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("demo", "demo"),
        ("org/set", "org/set"),
        ("org/set?split=test", "org/set?split=test"),
        ("{here}/train.jsonl", "train.jsonl"),
        ("{here}/folder", "folder"),
        ("{here}/folder/", "folder"),
        ("{here}/gone.jsonl", "gone.jsonl"),
        ("{here}/shards/{{000..123}}.tar", "{{000..123}}.tar"),
        ("{here}/train.jsonl=0.7,demo=0.3", "train.jsonl=0.7,demo=0.3"),
        ("org/set=0.5,{here}/train.jsonl=0.5", "org/set=0.5,train.jsonl=0.5"),
        ("{here}/train.jsonl?folder={here}/images&split=test", "train.jsonl?folder=images&split=test"),
        ("folder/train.jsonl", "train.jsonl"),
        (".", "work"),
    ],
)
def test_names_stay_and_paths_go(given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "work"
    (here / "folder").mkdir(parents=True)
    (here / "train.jsonl").touch()
    (here / "folder" / "train.jsonl").touch()
    monkeypatch.chdir(here)
    assert named(given.format(here=here)) == told.format()
