from pathlib import Path

import pytest
import torch

from tests import pico
from tests.artifacts import pruned
from tests.repair.material import samples
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import answer_all, score
from vlmc.toolchain.evaluate.compare import compare
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.settings import EvalSettings

QUIET = Progress(quiet=True)


def sample(answer: str, kind: str) -> Sample:
    return Sample("id", pico.picture(0), "what ?", answer, kind)


def test_score_counts_by_kind_and_folds_case_space_and_full_stop() -> None:
    asked = [sample("Seven", "read"), sample("red", "colour"), sample("blue", "colour"), sample("two", "count")]
    found = score(asked, [" seven. ", "red", "green", "two two"])
    assert found.by_kind == {"colour": 0.5, "count": 0.0, "read": 1.0}
    assert (found.overall, found.count) == (0.5, 4)


@pytest.mark.parametrize("family", sorted(pico.DEPLOYABLE))
def test_batches_answer_as_single_questions_do(tmp_path: Path, family: str) -> None:
    checkpoint = Checkpoint.find(str(pico.save(family, tmp_path / "m", torch.float32)))
    model = checkpoint.load()
    encoder = Encoder(checkpoint.load_processor(), checkpoint.family, model)
    asked = samples(7)
    together = answer_all(model, encoder, asked, QUIET, title="all", batch=3)
    alone = [answer_all(model, encoder, [one], QUIET, title="one")[0] for one in asked]
    assert together == alone
    assert len(set(together)) > 1, "the test needs answers that differ"
    assert not any("digit ?" in text or "USER" in text for text in together[:1]), "the prompt must not be in the answer"


def test_dense_stands_beside_compressed_and_the_card_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", Path("pico"))
    artifact = pruned(Path("pico"), Path("small"))
    pruned(Path("pico"), Path("smaller"), "1:4")
    found = compare("small", ["smaller"], EvalSettings(count=8), QUIET)
    assert list(found["models"]) == ["dense", "smaller", "small"]
    assert "| overall |" in (artifact.root / "README.md").read_text()
    assert (artifact.root / "reports" / "eval.json").is_file()


def test_the_dense_twin_must_be_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", Path("pico"))
    pruned(Path("pico"), Path("small"))
    pico.save("llava", Path("pico"), seed=1)
    with pytest.raises(InputError, match="digest differs"):
        compare("small", [], EvalSettings(count=2), QUIET)
