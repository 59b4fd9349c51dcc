"""Several processes: the same losses as one process at the same global batch, and one artifact."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repair import material
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain import builtin
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.repair.feeding import split

OPTIONS = ["--steps", "5", "--batch", "6", "--rank", "2", "--accumulate", "2", "--quiet", "--lr", "0.01"]


def test_parts_are_neighbours_of_nearly_one_length() -> None:
    assert split(range(7), 3) == [range(2), range(2, 4), range(4, 7)]
    assert [list(part) for part in split([1, 2], 2)] == [[1], [2]]


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(rank: int, count: int, where: int, arguments: list[str], folder: Path) -> "subprocess.Popen[str]":
    """Start one process as `torchrun` and `accelerate launch` do."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": where}
    environment = os.environ | {name: str(value) for name, value in told.items()}
    environment |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vlmc.toolchain.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def losses(artifact: Path) -> list[list[float]]:
    rows = list(csv.DictReader((artifact / "reports" / "repair.csv").read_text().splitlines()))
    return [[float(row[name]) for name in ("loss", "task", "kl", "norm")] for row in rows]


def two(arguments: list[str], folder: Path) -> None:
    where = port()
    processes = [start(rank, 2, where, arguments, folder) for rank in range(2)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=280)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--teacher", "cached", "--cache-tokens", "60"], ["--precision", "bf16"]])
def test_two_processes_have_the_losses_of_one(more: list[str], tmp_path: Path) -> None:
    material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    builtin.data_sets()["demo"].write(tmp_path / "data", "train", 9)
    arguments = [
        "repair",
        str(tmp_path / "pruned"),
        "--data",
        str(next((tmp_path / "data").glob("*.jsonl"))),
        *OPTIONS,
        *more,
    ]
    assert run([*arguments, "--out", str(tmp_path / "one")]) == 0
    two([*arguments, "--out", str(tmp_path / "both")], tmp_path)
    one, both = losses(tmp_path / "one"), losses(tmp_path / "both")
    allowed = 0.02 if "--precision" in more else 1e-3
    assert len(both) == 5
    for mine, theirs in zip(one, both, strict=True):
        assert theirs == pytest.approx(mine, rel=allowed)
    assert Artifact.open(tmp_path / "both").manifest.state == "adapted"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("both.")]


@pytest.mark.slow
def test_each_of_two_processes_may_have_workers(tmp_path: Path) -> None:
    material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    arguments = ["repair", str(tmp_path / "pruned"), *OPTIONS, "--workers"]
    two([*arguments, "0", "--out", str(tmp_path / "plain")], tmp_path)
    two([*arguments, "2", "--out", str(tmp_path / "ahead")], tmp_path)
    assert Artifact.open(tmp_path / "ahead").digest == Artifact.open(tmp_path / "plain").digest
    for file in ("adapter/adapter_model.safetensors", "reports/repair.csv", "manifest.json"):
        assert (tmp_path / "ahead" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_the_other_verbs_are_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for verb in ("compress", "merge"):
        assert run([verb]) == 2
        assert f"vlmc {verb} runs in one process" in capsys.readouterr().err
