"""What the commands say about themselves, and what they print when all is well."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import exported
from vlmc.runtime import Artifact
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.settings import CompressSettings, PruneSettings, RepairSettings, Settings

VERBS = (
    "compress",
    "prune",
    "repair",
    "merge",
    "verify-sparsity",
    "export",
    "eval",
    "sweep",
    "run",
    "serve",
    "inspect",
    "doctor",
    "demo-data",
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--json", "--quiet", "--seed", "--debug"):
        assert option in out


def test_help_shows_a_default_of_zero_and_one_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"]) == 0
    assert "[default: 0.0]" in capsys.readouterr().out
    assert run(["merge", "--help"]) == 0
    assert "[default: adapted]" in capsys.readouterr().out


@pytest.mark.integration
def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom vlmc.toolchain.cli.main import run\nrun(['--help'])\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'numpy', 'sklearn', 'yaml', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vlmc {version('vlmc')}\n"


def test_nothing_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "─ Commands ─" in capsys.readouterr().out


def training(folder: Path, workers: str) -> "subprocess.Popen[str]":
    """Start a run that would take hours; return when it trains. Its processes are a group, as a terminal's are."""
    pico.save("llava", folder / "dense")
    command = [sys.executable, "-m", "vlmc.toolchain.cli", "compress", "dense", "--steps", "100000", "--batch", "2"]
    process = subprocess.Popen(
        [*command, "--calibration", "2", "--pruned-questions", "0", "--workers", workers],
        cwd=folder,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells let what runs behind them ignore it
    )
    sign = "state.safetensors" if workers != "0" else ""  # there are batches, so the workers are there
    while not (folder / "artifact.work" / "2-repair.checkpoints" / sign).exists():
        assert process.poll() is None
        time.sleep(0.1)
    return process


def interrupt_all(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("stop", [subprocess.Popen.terminate, interrupt_all])
def test_stopped_in_the_middle_it_says_so_in_one_line(
    tmp_path: Path, stop: Callable[["subprocess.Popen[str]"], None], workers: str
) -> None:
    process = training(tmp_path, workers)
    stop(process)
    _, err = process.communicate(timeout=60)  # it waits for all processes that share stderr
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("vlmc: interrupted")
    assert "Traceback" not in err
    assert not (tmp_path / "artifact").exists()


@pytest.mark.slow
def test_killed_it_leaves_no_worker(tmp_path: Path) -> None:
    process = training(tmp_path, "2")
    process.kill()
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def test_every_option_of_the_chain_is_a_flag(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run(["compress", "--help"])
    out = capsys.readouterr().out
    for name, field in CompressSettings.model_fields.items():
        assert "--" + name.replace("_", "-") in out
        assert field.description, f"{name} has no docstring"


@pytest.mark.parametrize(
    ("verb", "group"), [("compress", CompressSettings), ("prune", PruneSettings), ("repair", RepairSettings)]
)
def test_options_stand_under_their_headings_and_rare_ones_last(
    verb: str, group: type[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run([verb, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    panels: dict[str, list[str]] = {}
    for line in lines:
        if found := re.match(r"╭─ (.+?) ─", line):
            panels[found[1]] = []
        elif found := re.match(r"│[ *]+(--[a-z-]+) ", line):
            panels[next(reversed(panels))].append(found[1])
    for name in group.model_fields:
        assert "--" + name.replace("_", "-") in panels[group.panel_of(name)], name
    common, rare = list(panels).index("Output"), [panel.startswith("Advanced: ") for panel in panels]
    assert not any(rare[: common + 1])
    assert all(rare[common + 1 :])
    assert {"--out", "--json", "--help"} <= set(panels["Output"])


@pytest.mark.integration
def test_a_flag_takes_back_what_the_recipe_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", tmp_path / "dense")
    Path("recipe.yaml").write_text("method: magnitude\nrefit: true\ncalibration: 1\n")
    assert run(["prune", "dense", "--recipe", "recipe.yaml", "--no-refit", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["history"][0]["refit"] is False


@pytest.mark.integration
def test_the_chain_by_recipe_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", tmp_path / "dense")
    Path("recipe.yaml").write_text(
        "target: 2:4\nvision: none\nsteps: 2\nbatch: 2\ncalibration: 2\nrank: 2\npruned_questions: 3\n"
    )
    assert run(["compress", "dense", "--recipe", "recipe.yaml", "--language", "4:8", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["patterns"] == ["4:8"]
    assert found["state"] == "merged"
    assert found["holds"] is True
    assert run(["verify-sparsity", "--quiet"]) == 0
    assert run(["eval", "--count", "6", "--json", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["inspect", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert list(evaluation["models"]) == ["dense", "artifact"]
    assert (evaluation["count"], evaluation["pruned"]["count"]) == (6, 3)
    assert "| overall |" in Path("artifact/README.md").read_text()


@pytest.mark.slow
def test_sweep_prints_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", tmp_path / "dense")
    few = ["--sums", "150", "--shares", "50:50,20:80", "--method", "magnitude", "--calibration", "1", "--count", "1"]
    assert run(["sweep", "dense", *few, "--seed", "3", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("split-study/sweep.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["dense", "50:50", "V + L", "V only", "L only"]
    assert found["settings"]["seed"] == 3
    assert run(["sweep", "dense", *few, "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "50:50 of 150 %     75%       75%  75.0 %" in out
    assert "skipped: 20:80 of 150 % is 30 % and 120 %" in out
    assert "split-study" in out.splitlines()[-1]
    assert "eta" in err


@pytest.mark.integration
def test_doctor_says_how_to_get_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmc.toolchain.machine.doctor.version_of", lambda name: None)
    monkeypatch.setattr("vlmc.toolchain.machine.doctor.packages_distributions", dict)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "missing: onnxruntime; get it with: pip install 'vlmc[cpu]', or 'vlmc[gpu]'" in out
    assert "providers: none" in out
    assert "missing: onnx; get it with: pip install 'vlmc[onnx]'" in out
    assert "missing: tensorrt-rtx; get it with: pip install 'vlmc[tensorrt-rtx]'" in out


@pytest.mark.integration
@pytest.mark.parametrize(("load", "kernels"), [(0.4, True), (2.26, True), (2.26, False)])
def test_doctor_warns_of_speeds_measured_beside_other_programs(
    load: float, kernels: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = {"threads": 1, "read_gb_per_second": 9.0, "decode_gain": {"bf16": 3.0}} if kernels else None
    monkeypatch.setattr("vlmc.toolchain.machine.doctor._cpu_speed", lambda: speed)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert run(["doctor"]) == 0
    warned = "warning: other programs were busy in the minute before (load 2.3), so speeds" in capsys.readouterr().out
    assert warned == (kernels and load > 1)


@pytest.mark.integration
@pytest.mark.parametrize("installed", [["onnxruntime"], ["onnxruntime-gpu"], ["onnxruntime-gpu", "onnxruntime"]])
def test_doctor_names_the_onnx_runtime_that_is_installed_and_warns_of_two(
    installed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.toolchain.machine.doctor.packages_distributions", lambda: {"onnxruntime": installed})
    monkeypatch.setattr("vlmc.toolchain.machine.doctor.version_of", lambda name: None if name == "tensorrt" else "1.2.3")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("onnxruntime")] == sorted(installed)
    assert "missing" not in out.replace("nothing is missing", "")
    both = (
        "warning: onnxruntime and onnxruntime-gpu overwrite each other: pip uninstall -y onnxruntime onnxruntime-gpu, then"
    )
    assert (both in out) == (len(installed) == 2)


@pytest.mark.integration
@pytest.mark.parametrize("verb", ["export", "run"])
def test_without_onnx_runtime_the_extras_are_named(
    verb: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported("llava", tmp_path_factory.getbasetemp())
    image = folder.parent / "image.png"
    pico.picture(0).save(image)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    before = Artifact.open(folder).manifest
    more = ["--image", str(image), "--prompt", "what ?"] if verb == "run" else ["--backend", "onnx"]
    assert run([verb, str(folder), *more]) == 3
    assert "ONNX Runtime is not installed: pip install 'vlmc[cpu]', or 'vlmc[gpu]'" in capsys.readouterr().err
    assert Artifact.open(folder).manifest == before
