from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import pico
from tests.artifacts import pruned
from tests.repair.material import samples
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import answer_all, score
from vlmc.toolchain.evaluate.compare import answered, compare
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import EvalSettings, RepairSettings
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.repair import Repair

pytestmark = pytest.mark.integration

QUIET = Progress(quiet=True)


def sample(answer: str, kind: str) -> Sample:
    return Sample("id", (pico.picture(0),), "what ?", answer, kind)


def test_score_counts_by_kind_and_folds_case_space_and_full_stop() -> None:
    asked = [sample("Seven", "read"), sample("red", "colour"), sample("blue", "colour"), sample("two", "count")]
    found = score(asked, [" seven. ", "red", "green", "two two"])
    assert found.by_kind == {"colour": 0.5, "count": 0.0, "read": 1.0}
    assert (found.overall, found.count) == (0.5, 4)


@pytest.mark.parametrize("family", sorted(pico.USUAL))
def test_batches_answer_as_single_questions_do(tmp_path: Path, family: str) -> None:
    saved = SavedModel.find(str(pico.save(family, tmp_path / "m", torch.float32)))
    model = saved.load()
    encoder = Encoder(saved.load_processor(), saved.family, model)
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


@pytest.mark.slow
def test_an_adapter_that_is_not_merged_is_measured_where_it_sits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pico.save("llava", Path("pico"))
    pruned(Path("pico"), Path("small"))
    options = RepairSettings(method="lora", steps=2, batch=2, rank=2, lr=0.5, samples=4, pruned_questions=0)
    Repair(options).run(SavedModel.find("small"), Path("adapted"))
    Merge().run(SavedModel.find(str(_masked(options))), Path("merged"))
    found = {name: _logits(name, monkeypatch) for name in ("small", "adapted", "merged", "masked")}
    assert not torch.allclose(found["small"], found["adapted"], atol=1e-2)
    torch.testing.assert_close(found["masked"], found["merged"], atol=2e-2, rtol=1e-2)


def _logits(name: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Return the logits of the model that `measure` questions."""
    seen: list[nn.Module] = []
    monkeypatch.setattr("vlmc.toolchain.evaluate.compare.answer_all", lambda model, *rest, **more: seen.append(model) or [])
    saved = SavedModel.find(name)
    answered(saved, [], QUIET, title=name)
    encoder = Encoder(saved.load_processor(), saved.family, seen[0])
    with torch.no_grad():
        logits: Tensor = seen[0](**encoder.question(samples(1)[0])).logits
    return logits


def _masked(options: RepairSettings) -> Path:
    """Repair with a method whose adapter can be merged."""
    Repair(options.model_copy(update={"method": "sparse-lora"})).run(SavedModel.find("small"), Path("masked"))
    return Path("masked")
