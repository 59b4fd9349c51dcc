"""An outside judge: lmms-eval's number for an artifact is that of `vlmc eval`, on the same questions."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.artifacts import pruned
from tests.test_packaging import ROOT
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.models.saved import SavedModel

QUESTIONS = 24
TEMPLATE = "{{ messages[0]['content'] }} answer:"  # that class of lmms-eval gives templates one text, the demo's takes parts
MODELS = {"vlmc": "", "llava_hf": f",dtype=float32,device_map=cpu,chat_template={TEMPLATE}"}
NEEDED = {"vlmc": ["lmms_eval", "datasets"], "llava_hf": ["lmms_eval", "datasets", "decord"]}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_lmms_eval_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    missing = [name for name in NEEDED[model] if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs pip install {' '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    artifact = pruned(SavedModel.find("demo").folder, tmp_path / "art")
    assert run(["demo-data", "demo-data", "--split", "test", "--count", str(QUESTIONS), "--quiet"]) == 0
    assert run(["export", "art", "--quiet"]) == 0
    assert run(["eval", "art", "--data", "demo-data/test.jsonl", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["models"][artifact.root.name]["overall"]
    command = [sys.executable, str(ROOT / "examples/lmms_eval/judge.py"), "art", "--model", model]
    done = subprocess.run([*command, "--model-args", MODELS[model]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])["vlmc_demo"]["exact_match,none"]
    assert 0 < expected < 1
    assert found == pytest.approx(expected)
