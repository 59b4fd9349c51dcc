import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import pico
from tests.repair.material import Killed, KilledAt
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.locking import exclusive
from vlmc.runtime.errors import EnvironmentLacks, InputError, VlmcError
from vlmc.toolchain import builtin
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.reporting.paths import PAGE
from vlmc.toolchain.settings import CompressSettings
from vlmc.toolchain.stages.compress import Compress
from vlmc.toolchain.stages.run_folder import RunFolder

OPTIONS = CompressSettings(calibration=3, steps=6, batch=2, rank=2, checkpoint_every=2, pruned_questions=2)
FAMILIES = sorted(pico.USUAL)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files but the report for people, which tells times."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / PAGE]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def dense(tmp_path: Path, family: str = "llava") -> SavedModel:
    return SavedModel.find(str(pico.save(family, tmp_path / "dense")))


@pytest.mark.integration
@pytest.mark.parametrize("family", FAMILIES)
def test_one_command_gives_a_merged_artifact_that_holds(tmp_path: Path, family: str) -> None:
    artifact = Compress(OPTIONS).run(dense(tmp_path, family), tmp_path / "out")
    assert [step.stage for step in artifact.manifest.history] == ["prune", "repair", "merge"]
    assert artifact.manifest.state == "merged"
    artifact.verify_files()
    assert f"{family}, merged" in (artifact.root / PAGE).read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "out"]


@pytest.mark.integration
def test_repair_none_stops_after_pruning(tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"repair": "none"})
    assert Compress(options).run(dense(tmp_path), tmp_path / "out").manifest.state == "pruned"


@pytest.mark.integration
def test_a_method_that_is_kept_apart_stops_before_merging(tmp_path: Path) -> None:
    source, options = dense(tmp_path), OPTIONS.model_copy(update={"repair": "lora"})
    result = Compress(options).run(source, tmp_path / "out")
    assert (result.manifest.state, result.manifest.history[-1].config["method"]) == ("adapted", "lora")
    Compress(options, progress=KilledAt(1)).run(source, tmp_path / "out")


@pytest.mark.slow
def test_killed_anywhere_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    source = dense(tmp_path)
    Compress(OPTIONS).run(source, tmp_path / "unbroken")
    kills = 0
    for every, progress in enumerate((KilledAt(2), KilledAt(4), KilledAt(5), Progress(quiet=True)), 1):
        options = OPTIONS.model_copy(update={"checkpoint_every": every})  # it does not change what the run is
        try:
            Compress(options, progress=progress).run(source, tmp_path / "broken")
        except Killed:
            kills += 1
            assert not (tmp_path / "broken").exists()
    assert kills >= 2, "the kills must hit both pruning and repair"
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


@pytest.mark.integration
def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    source = dense(tmp_path)
    Compress(OPTIONS).run(source, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    Compress(OPTIONS, progress=KilledAt(1)).run(source, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_other_options_do_not_overwrite(tmp_path: Path) -> None:
    source, other = dense(tmp_path), OPTIONS.model_copy(update={"lr": 5e-4})
    old = Compress(OPTIONS).run(source, tmp_path / "out")
    with pytest.raises(InputError, match="--force"):
        Compress(other).run(source, tmp_path / "out")
    assert Artifact.open(tmp_path / "out").digest == old.digest
    assert Compress(other).run(source, tmp_path / "out", force=True).digest != old.digest


def test_options_that_leave_the_result_alone_are_no_part_of_what_a_run_is() -> None:
    other = OPTIONS.model_copy(update={"checkpoint_every": 3, "max_bad": "7", "spill": True, "workers": 3})
    assert [one.settings() for one in Compress(other).stages] == [one.settings() for one in Compress(OPTIONS).stages]


@pytest.mark.slow
def test_an_unfinished_run_is_not_continued_with_other_options(tmp_path: Path) -> None:
    source, other = dense(tmp_path), OPTIONS.model_copy(update={"lr": 5e-4})
    with pytest.raises(Killed):
        Compress(OPTIONS, progress=KilledAt(5)).run(source, tmp_path / "out")
    with pytest.raises(InputError, match=r"out\.work holds another run: its repair\.lr was None, now it is 0\.0005"):
        Compress(other).run(source, tmp_path / "out")
    assert Compress(other).run(source, tmp_path / "out", force=True).manifest.state == "merged"


def own_data(folder: Path) -> CompressSettings:
    """Options to prune on four questions of one's own."""
    return OPTIONS.model_copy(update={"repair": "none", "data": str(builtin.data_sets()["demo"].write(folder, "train", 4))})


def change(folder: Path) -> None:
    """Change one byte of an image, and nothing else: not the file's size, nor anything of the file that lists it."""
    image = sorted((folder / "images").iterdir())[1]
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.integration
def test_a_byte_of_an_image_makes_another_run(tmp_path: Path) -> None:
    source, options = dense(tmp_path), own_data(tmp_path / "data")
    old = Compress(options).run(source, tmp_path / "out")
    Compress(options, progress=KilledAt(1)).run(source, tmp_path / "out")
    change(tmp_path / "data")
    with pytest.raises(InputError, match=r"out is from another run: its prune\.data\.calibration was '3:\w+.*add --force"):
        Compress(options).run(source, tmp_path / "out")
    new = Compress(options).run(source, tmp_path / "out", force=True)
    digests = [one.manifest.history[0].measures["data"]["calibration"] for one in (old, new)]
    assert digests[0] != digests[1]


@pytest.mark.integration
def test_a_byte_of_an_image_stops_an_unfinished_run(tmp_path: Path) -> None:
    source, options = dense(tmp_path), own_data(tmp_path / "data")
    with pytest.raises(Killed):
        Compress(options, progress=KilledAt(2)).run(source, tmp_path / "out")
    change(tmp_path / "data")
    with pytest.raises(InputError, match=r"out\.work holds another run: its prune\.data\.calibration was .*add --force"):
        Compress(options).run(source, tmp_path / "out")


@pytest.mark.integration
def test_the_data_may_move(tmp_path: Path) -> None:
    source, options = dense(tmp_path), own_data(tmp_path / "data")
    with pytest.raises(Killed):
        Compress(options, progress=KilledAt(2)).run(source, tmp_path / "out")
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    moved = options.model_copy(update={"data": str(tmp_path / "elsewhere" / "train.jsonl")})
    Compress(moved).run(source, tmp_path / "out")
    shutil.move(tmp_path / "elsewhere", tmp_path / "data")
    Compress(options, progress=KilledAt(1)).run(source, tmp_path / "out")


WRONG = {
    "data": ({"data": "trian.jsonl"}, "no data set at trian.jsonl"),
    "columns": ({"columns": "picture=img"}, "'picture' is not one of"),
    "validation": ({"validate_every": 2, "validation": "gone.jsonl"}, "no data set at gone.jsonl"),
    "no validation": ({"patience": 2}, "there is nothing to validate"),
    "kernel": ({"kernel": "triton"}, "--kernel triton needs an NVIDIA GPU"),
    "teacher": ({"teacher": "shared", "method": "sparsegpt"}, "--teacher shared: this pruning changes weights"),
    "target": ({"target": "2:7"}, "not a multiple of the pattern's group"),
    "glob": ({"layers": {"nothing.*": "none"}}, "nothing"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_input_leaves_nothing_behind(tmp_path: Path, wrong: str) -> None:
    changes, message = WRONG[wrong]
    source, options = dense(tmp_path), own_data(tmp_path / "data").model_copy(update={"repair": "ressa"} | changes)
    with pytest.raises(VlmcError, match=message):
        Compress(options).run(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "dense"]


def test_a_package_that_is_missing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = OPTIONS.model_copy(update={"tensorboard": str(tmp_path / "curves")})
    with pytest.raises(EnvironmentLacks, match="pip install tensorboard"):
        Compress(options).run(dense(tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


@pytest.mark.parametrize("force", [False, True])
def test_what_stands_in_the_way_is_not_touched(tmp_path: Path, force: bool) -> None:
    source = dense(tmp_path)
    for name, message in (
        ("out", "out exists and is not a vlmc artifact"),
        ("out.work", r"out\.work is in the way and was not made by vlmc"),
        ("out.partial", r"out\.partial is in the way and was not made by vlmc"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match=message):
            Compress(OPTIONS, progress=KilledAt(1)).run(source, tmp_path / "out", force=force)
        assert (tmp_path / name / "thesis.txt").read_text() == "mine"
        shutil.rmtree(tmp_path / name)


def test_a_link_is_refused_before_any_work(tmp_path: Path) -> None:
    source = dense(tmp_path)
    (tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(InputError, match="out is a symbolic link"):
        Compress(OPTIONS, progress=KilledAt(1)).run(source, tmp_path / "out", force=True)


@pytest.mark.integration
def test_what_a_kill_at_the_very_end_left_is_cleared_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = dense(tmp_path), OPTIONS.model_copy(update={"repair": "none"})
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", lambda _: None)
        Compress(options).run(source, tmp_path / "out")
    assert (tmp_path / "out.work").is_dir()
    Compress(options, progress=KilledAt(1)).run(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "out"]


def test_two_at_once_do_not_share_a_place(tmp_path: Path) -> None:
    source, options = dense(tmp_path), OPTIONS.model_copy(update={"repair": "none"})
    with ThreadPoolExecutor(1) as other, exclusive(tmp_path / "out"):
        second = other.submit(Compress(options, progress=KilledAt(1)).run, source, tmp_path / "out")
        with pytest.raises(InputError, match=r"another process is writing .*out: wait until it is done"):
            second.result()
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]
