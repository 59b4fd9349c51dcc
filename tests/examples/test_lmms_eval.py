"""An outside judge: lmms-eval's number for an artifact is that of `vlmc eval`, on the same questions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.artifacts import pruned
from tests.test_packaging import ROOT
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.paths import EVALUATION

QUESTIONS = 24
TEMPLATE = "{{ messages[0]['content'] }} answer:"  # that class of lmms-eval gives templates one text, the demo's takes parts
MODELS = {"vlmc": "", "llava_hf": f",dtype=float32,device_map=cpu,chat_template={TEMPLATE}"}
NEEDED = {"vlmc": ["datasets"], "llava_hf": ["datasets", "decord"]}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[float]:
    """Write an artifact with graphs, and questions, into the current folder; return what `vlmc eval` makes of it."""
    if find_spec("lmms_eval") is None:
        pytest.skip("needs pip install lmms-eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("judged"))
        pruned(SavedModel.find("demo").folder, Path("art"))
        assert run(["demo-data", "demo-data", "--split", "test", "--count", str(QUESTIONS), "--quiet"]) == 0
        assert run(["export", "art", "--quiet"]) == 0
        assert run(["eval", "art", "--data", "demo-data/test.jsonl", "--quiet"]) == 0
        yield json.loads(Path("art", EVALUATION).read_text())["models"]["art"]["overall"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_lmms_eval_agrees(judged: float, model: str) -> None:
    missing = [name for name in NEEDED[model] if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs pip install {' '.join(missing)}")
    command = [sys.executable, str(ROOT / "examples/lmms_eval/judge.py"), "art", "--model", model]
    done = subprocess.run([*command, "--model-args", MODELS[model]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < judged < 1
    assert json.loads(done.stdout.splitlines()[-1])["vlmc_demo"]["exact_match,none"] == pytest.approx(judged)
