"""Every wrong input that a user can type: one line on stderr, the exit code, nothing on stdout, nothing left behind."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from safetensors import SafetensorError

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime.artifact import locking
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError
from vlmc.runtime.images import open_image
from vlmc.toolchain.cli.main import explain, run

pytestmark = pytest.mark.integration

Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    pico.save("llava", folder / "dense")
    pruned(folder / "dense", folder / "pruned")
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with links to a dense and a pruned model."""
    monkeypatch.chdir(tmp_path)
    os.system(f"cp -r {material}/* {tmp_path}")
    return tmp_path


@pytest.fixture
def vlmc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def jsonl(path: Path, *lines: object) -> None:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))


GOOD = {"image": "p.png", "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "seven"}]}


def break_data(here: Path) -> None:
    Image.new("RGB", (8, 8)).save(here / "p.png")
    jsonl(here / "broken.jsonl", GOOD, GOOD, "{not json")
    jsonl(here / "missing.jsonl", GOOD, {**GOOD, "image": "gone.png"})
    jsonl(here / "turns.jsonl", {**GOOD, "conversations": [{"from": "human"}]})
    jsonl(here / "empty.jsonl", "")
    jsonl(here / "short.jsonl", GOOD)
    (here / "text.png").write_text("no image")
    jsonl(here / "bad-image.jsonl", {**GOOD, "image": "text.png"})


def break_models(here: Path) -> None:
    for name in ("cut", "nomodel", "unknown", "badconfig", "lacking"):
        os.system(f"cp -r {here}/dense {here}/{name}")
    weights = here / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (here / "nomodel" / "config.json").unlink()
    config = json.loads((here / "dense" / "config.json").read_text())
    (here / "unknown" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    (here / "badconfig" / "config.json").write_text("{")
    (here / "file").write_text("a file")


def break_artifacts(here: Path) -> None:
    for name in ("edited", "short", "gone"):
        os.system(f"cp -r {here}/pruned {here}/{name}")
    manifest = here / "edited" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"2:4"', '"1:4"', 1))
    (here / "short" / "model.safetensors").write_bytes(b"x")
    (here / "gone" / "masks.safetensors").unlink()


CASES: list[tuple[list[str], int, str]] = [
    # usage
    (["frobnicate"], 2, "frobnicate"),
    (["prune", "--speed", "9"], 2, "--speed"),
    (["prune", "--calibration", "many"], 2, "--calibration"),
    (["prune", "dense", "--calibration", "0"], 2, "--calibration 0: input should be greater than or equal to 1"),
    (["prune", "dense", "--target", "2:2"], 2, "unknown sparsity '2:2'"),
    (["prune", "dense", "--vision", "half"], 2, "unknown sparsity 'half'"),
    (
        ["prune", "dense", "--method", "guess"],
        2,
        "--method guess: input should be 'magnitude', 'wanda', 'sparsegpt' or 'admm'",
    ),
    (["prune", "dense", "--tokens", "visual"], 2, "--tokens visual: input should be 'all', 'text' or 'atv'"),
    (["prune", "dense", "--tokens", "text", "--language", "none"], 2, "the language model, which is left dense"),
    (["prune", "dense", "--tokens", "atv", "--method", "magnitude"], 2, "magnitude uses no calibration tokens: add --refit"),
    (["prune", "dense", "--target", "2:7"], 2, "add --allow-dense to leave them dense"),
    (["prune", "dense", "--target", "2:7", "--allow-dense"], 2, "nothing to prune"),
    (["compress", "dense", "--repair", "glue"], 2, "--repair glue: input should be 'ressa', 'sparse-lora'"),
    (["compress", "dense", "--target", "3:2", "--out", "pruned"], 2, "unknown sparsity '3:2'"),
    (["compress", "some/model"], 3, "the hub cannot be reached: give a local folder"),
    (["compress", "dense", "--lr", "0"], 2, "--lr 0.0: input should be greater than 0"),
    (["repair", "pruned", "--workers", "-1"], 2, "--workers -1: input should be greater than or equal to 0"),
    (["compress", "dense", "--recipe", "nowhere.yaml"], 2, "the recipe nowhere.yaml cannot be read"),
    (["compress", "dense", "--recipe", "file"], 2, "must be a YAML mapping"),
    (["compress", "dense", "--recipe", "key.yaml"], 2, "unknown key 'speed'"),
    (["run", "pruned", "--prompt", "what?"], 2, "--image"),
    (["export", "pruned", "--backend", "coreml"], 2, "coreml"),
    (["export", "pruned", "--precision", "fp4"], 2, "--precision fp4"),
    (["sweep", "dense", "--shares", "70-30"], 2, "--shares: '70-30' is not a share: give vision:language such as 60:40"),
    (["sweep", "dense", "--shares", "1:0,0:1"], 2, "no share can be tried: 100:0 of 100 %"),
    (["sweep", "dense", "--sums", "100,220"], 2, "--sums: '220' is not a sum of two sparsities"),
    (["sweep", "dense", "--method", "guess"], 2, "--method guess: input should be"),
    (["sweep", "dense", "--targets", "none"], 2, "unknown sparsity 'none'"),
    (["sweep", "dense", "--targets", "2:7"], 2, "--targets 2:7: the inputs of 32 of 32 layers"),
    (["sweep", "dense", "--count", "0"], 2, "--count 0: input should be greater than or equal to 1"),
    # models
    (["sweep", "pruned"], 2, "pruned is already pruned: prune a dense model"),
    (["sweep", "cut"], 2, "model.safetensors is cut short"),
    (["prune", "nowhere/at/all"], 2, "no model at nowhere/at/all"),
    (["prune", "demmo"], 2, "no model at demmo"),
    (["prune", "file"], 2, "no model at file"),
    (["prune", "cut"], 2, "model.safetensors is cut short"),
    (["prune", "nomodel"], 2, "it has no config.json"),
    (["prune", "unknown"], 2, "is a 'bert' model; vlmc knows blip-2, blip-2-t5, gemma3"),
    (["prune", "badconfig"], 2, "config.json is not valid JSON"),
    (["prune", "pruned"], 2, "pruned is already pruned"),
    # artifacts
    (["inspect"], 2, "no artifact at artifact"),
    (["inspect", "unknown"], 2, "is a 'bert' model; vlmc knows blip-2"),
    (["inspect", "cut"], 2, "model.safetensors is cut short"),
    (["verify-sparsity", "dense"], 2, "so its pattern is not known: add --target, such as --target 2:4"),
    (["verify-sparsity", "unknown", "--target", "2:4"], 2, "is a 'bert' model"),
    (["eval", "pruned", "--dense", "nowhere/at/all"], 2, "no model at nowhere/at/all"),
    (["inspect", "edited"], 2, "was edited (checksum differs)"),
    (["inspect", "short"], 2, "has 1 bytes, the manifest says"),
    (["inspect", "gone"], 2, "masks.safetensors is missing"),
    (["verify-sparsity", "nowhere"], 2, "no artifact at nowhere"),
    (["verify-sparsity", "file.onnx"], 2, "file.onnx"),
    (["merge", "pruned"], 2, "pruned"),
    (["repair", "dense"], 2, "dense is dense: repair a pruned artifact, as 'vlmc prune dense' writes it"),
    (["run", "pruned", "--image", "p.png", "--prompt", "what?"], 2, "vlmc export"),
    # places
    (["prune", "dense", "--out", "pruned"], 2, "pruned exists: add --force"),
    (["prune", "dense", "--out", "dense"], 2, "dense exists and is not a vlmc artifact"),
    (["prune", "dense", "--out", "dense", "--force"], 2, "dense exists and is not a vlmc artifact"),
    (["compress", "dense", "--out", "dense", "--force"], 2, "dense exists and is not a vlmc artifact"),
    (["demo-data", "dense"], 2, "dense exists"),
    (["sweep", "dense", "--out", "pruned", "--force"], 2, "pruned exists and is not a study of vlmc"),
    # data
    (["prune", "dense", "--data", "nowhere.jsonl"], 2, "no data set at nowhere.jsonl"),
    (["prune", "dense", "--data", "file"], 2, "no data set at file"),
    (["eval", "dense", "--data", "broken.jsonl"], 2, "broken.jsonl, line 3: invalid JSON"),
    (["eval", "dense", "--data", "missing.jsonl"], 2, "missing.jsonl line 2-0: no image at gone.png"),
    (["eval", "dense", "--data", "turns.jsonl"], 2, "turns.jsonl, line 1: conversations must be a list"),
    (["eval", "dense", "--data", "empty.jsonl"], 2, "empty.jsonl has no questions"),
    (["eval", "dense", "--data", "bad-image.jsonl"], 2, "text.png"),
    (["prune", "dense", "--data", "short.jsonl"], 2, "short.jsonl has only 1 of the 128 samples that are needed"),
    (["eval", "dense", "--split", "secret"], 2, "the demo has no split 'secret'"),
    (["prune", "dense", "--data", "short.jsonl,demo=1"], 2, "give every source a weight, or none"),
    (["prune", "dense", "--data", "demo", "--max-bad", "some"], 2, "--max-bad some: give a number of images"),
    (["prune", "dense", "--data", "some/images"], 3, "the hub cannot be reached: give a file or a folder"),
    (["repair", "pruned", "--data", "some/images", "--stream"], 2, "add --samples or --count"),
    (["sweep", "dense", "--data", "short.jsonl"], 2, "short.jsonl has only 1 of the 128 samples that are needed"),
    (["sweep", "dense", "--calibration-data", "nowhere.jsonl"], 2, "no data set at nowhere.jsonl"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_one_line_and_the_exit_code(
    here: Path, vlmc: Callable[..., Result], arguments: list[str], code: int, message: str
) -> None:
    break_data(here)
    break_models(here)
    break_artifacts(here)
    (here / "key.yaml").write_text("target: 2:4\nspeed: 9\n")
    before = sorted(here.rglob("*"))
    place = ["--out", "fresh"] if arguments[0] == "prune" and "--out" not in arguments else []
    found, out, err = vlmc(*arguments, *place, "--quiet")
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("vlmc: ")
    assert err.count("\n") == 1, err
    assert sorted(here.rglob("*")) == before


def test_a_broken_weight_is_exit_1_with_the_place(here: Path, vlmc: Callable[..., Result]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(here / "pruned" / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    weights[name][3, 4:8] = 1
    save_file(weights, here / "pruned" / "model.safetensors", metadata={"format": "pt"})
    code, out, err = vlmc("verify-sparsity", "pruned", "--json")
    assert code == 1
    assert "row 3, columns 4-7 hold 4 non-zero weights, 2 allowed" in err
    report = json.loads(out)
    assert report["holds"] is False
    assert [bool(layer["violation"]) for layer in report["layers"]].count(True) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("bad"), 2, "bad"),
        (CheckFailed("broken"), 1, "broken"),
        (EnvironmentLacks("lacking"), 3, "lacking"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "no space left on the disk"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 3, "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x cannot be written or read"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.BadParameter("no\nway"), 2, "no way"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            3,
            "torch is not installed: pip install 'vlmc[toolchain]'",
        ),
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), 3, "scikit-learn is not installed"),
        (ZeroDivisionError("odd"), 1, "internal error, ZeroDivisionError: odd"),
    ],
)
def test_every_failure_has_its_line_and_code(error: BaseException, code: int, message: str) -> None:
    line, found = explain(error)
    assert found == code
    assert message in line
    assert "\n" not in line


def test_debug_shows_the_traceback(here: Path, vlmc: Callable[..., Result]) -> None:
    code, _, err = vlmc("inspect", "nowhere", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_a_full_disk_leaves_nothing(here: Path, vlmc: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vlmc.toolchain.stages.prune.save_masks", fail)
    before = sorted(here.rglob("*"))
    code, out, err = vlmc("prune", "dense", "--out", "fresh", "--calibration", "2", "--quiet")
    assert (code, out) == (3, "")
    assert "no space left" in err
    after = [path for path in sorted(here.rglob("*")) if "fresh.blocks" not in path.parts]  # to go on from, with --resume
    assert after == before


def test_an_image_that_is_none(here: Path, vlmc: Callable[..., Result]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    (here / "half.png").write_bytes(buffer.getvalue()[:40])
    (here / "text.png").write_text("no image")
    for name in ("half.png", "text.png", "nowhere.png"):
        with pytest.raises(InputError, match=name):
            open_image(here / name)


@pytest.mark.parametrize(
    "command",
    [
        ["prune", "dense", "--out"],
        ["compress", "dense", "--out"],
        ["sweep", "dense", "--count", "2", "--calibration", "2", "--out"],
        ["demo-data", "--count", "2"],
    ],
)
def test_nothing_is_put_beside_a_file_that_is_somebody_elses(
    command: list[str], here: Path, vlmc: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "thesis.txt").write_text("mine")
    monkeypatch.setattr(locking, "_lock_file", lambda *_: pytest.fail("a lock is made"))
    code, _, err = vlmc(*command, "thesis.txt")
    assert (code, err.count("\n")) == (2, 1), err
    assert (here / "thesis.txt").read_text() == "mine"
