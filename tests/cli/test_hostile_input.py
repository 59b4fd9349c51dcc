"""Options, names and an environment that nobody means well: one short line, the exit code, nothing run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmc.runtime.errors import InputError, shortened
from vlmc.toolchain.cli.main import explain, run

LONG, LONE = "x" * 300, "a\udcffb"  # longer than a file's name may be; bytes that are not UTF-8
CASES = [
    (["inspect", LONG], 2, "cannot be used as a name (File name too long)"),
    (["prune", LONG], 2, "no model at xxx"),
    (["prune", LONE], 2, r"the name a\udcffb is not UTF-8"),
    (["prune", "demo", "--out", LONE], 2, r"the name a\udcffb is not UTF-8"),
    (["eval", "demo", "--data", LONG], 2, "cannot be used as a name"),
    (["inspect", "a\x1b[31m\nb"], 2, r"no artifact at a\x1b[31m\nb"),
    (["prune", "demo", "--seed", str(2**64)], 2, "less than or equal to 9223372036854775807"),
    (["repair", "--rank", "1e20"], 2, "--rank"),
    (["repair", "--rank", "1" + "0" * 20], 2, "--rank 100000000000000000000: input should be less than or equal to 65536"),
    (["repair", "--hidden", "inf"], 2, "--hidden inf: input should be a finite number"),
    (["repair", "--hidden", "1e300"], 2, "less than or equal to 1000000"),
    (["repair", "--temperature", "1e-300"], 2, "--temperature 1e-300: input should be greater than or equal to 0.001"),
    (["run", "--image", "x", "--prompt", "y", "--temperature", "1e9"], 2, "less than or equal to 1000"),
    (["eval", "demo", "--count", "1", "--device", "cpu:7"], 2, "unknown device 'cpu:7': give cpu, cuda or cuda:1"),
    (["eval", "demo", "--count", "1", "--device", "cuda:999"], 3, "this machine has no cuda:999"),
    (
        ["prune", "demo", "--calibration", "1", "--target", "0.001%"],
        2,
        "give at least",
    ),
    (["prune", "demo", "--target", "9" * 5000 + ":1"], 2, "unknown sparsity '999"),
    (["prune", "demo", "--calibration", "99999999"], 2, "less than or equal to 10000000"),
    (["demo-data", "d", "--count", "99999999"], 2, "the demo cannot draw 99999999 samples"),
    (["demo-data", "", "--count", "1"], 2, "'.' is no name for what is written: name a folder that is not there yet"),
    (["prune", "demo", "--calibration", "1", "--out", "/"], 2, "'/' is no name for what is written"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), CASES, ids=[f"{case[0][0]}-{case[2][:20]}" for case in CASES])
def test_one_line_and_the_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--quiet"]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 800
    assert not captured.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "arguments"),
    [("WORLD_SIZE", ["compress", "demo"]), ("RANK", ["prune", "demo"]), ("LOCAL_RANK", ["prune", "demo"])],
)
def test_a_broken_environment_is_told(
    variable: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "abc")
    assert run(arguments) == 2
    assert capsys.readouterr().err == f"vlmc: {variable}=abc in the environment is not a number: unset it\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(36, "File name too long", "x" * 5000),
        RecursionError(),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
)
def test_what_a_library_raises_on_bad_input_is_no_internal_error(error: Exception) -> None:
    line, code = explain(error)
    assert code == 2
    assert len(line) < 400
    assert "internal error" not in line


def test_an_error_says_nothing_that_a_terminal_would_obey() -> None:
    assert str(InputError("d.parquet: don't know \x0f\n")) == r"d.parquet: don't know \x0f\n"


def test_messages_are_safe_to_print() -> None:
    assert shortened("a\x1b[2J\nb\ud800\u202e é漢") == r"a\x1b[2J\nb\ud800\u202e é漢"
    assert shortened("x" * 301) == "x" * 300 + "..."


PRINTS = "from vlmc.toolchain.cli.main import main; main(['doctor'])"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ("{} > /dev/full", 3, "vlmc: the result cannot be printed: No space left on device\n"),
        ("{} >&-", 3, "vlmc: the result cannot be printed: standard output is closed\n"),
        ("{{ sleep 0.1; exec {}; }} > >(exec true)", 141, ""),
        ("{} > /dev/null 2>&-", 0, ""),
    ],
    ids=["full", "closed", "broken pipe", "no stderr"],
)
def test_an_output_that_takes_nothing(shell: str, code: int, told: str) -> None:
    line = shell.format(f'{sys.executable} -c "{PRINTS}"')
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stderr) == (code, told)
