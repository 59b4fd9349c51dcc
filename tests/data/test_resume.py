"""A repair on files with bad images, stopped and gone on with, is the repair that was never stopped."""

from pathlib import Path

import pytest

from tests.data.material import lines
from tests.repair import material
from vlmc.toolchain.settings import RepairSettings
from vlmc.toolchain.stages.repair import Repair


@pytest.mark.slow
def test_bad_images_do_not_change_a_run_that_goes_on(tmp_path: Path) -> None:
    asked = material.samples(12)
    for number, one in enumerate(asked):
        one.load_image().save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes(b"")
    (tmp_path / "6.png").unlink()
    rows = [{"image": f"{number}.png", "question": one.question, "answer": one.answer} for number, one in enumerate(asked)]
    options = RepairSettings(
        **material.OPTIONS.model_dump() | {"data": str(lines(tmp_path / "d.jsonl", rows)), "max_bad": "2", "steps": 10}
    )
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    unbroken = Repair(options).run(source, tmp_path / "unbroken")
    with pytest.raises(material.Killed):
        Repair(options, progress=material.KilledAt(7)).run(source, tmp_path / "resumed")
    raised = options.model_copy(update={"max_bad": "50%"})
    resumed = Repair(raised, resume=True).run(source, tmp_path / "resumed")
    assert unbroken.digest == resumed.digest
    adapter = Path("adapter", "adapter_model.safetensors")
    assert (unbroken.root / adapter).read_bytes() == (resumed.root / adapter).read_bytes()
