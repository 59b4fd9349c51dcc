import shutil
from pathlib import Path
from typing import Any

import pytest

from vlmc.runtime.artifact import Artifact, Layer, Manifest, Origin, Part, write
from vlmc.runtime.artifact.folder import model_files
from vlmc.runtime.artifact.owned import OwnFolder
from vlmc.runtime.errors import InputError


def manifest(**changes: Any) -> Manifest:
    layers = {"a": Layer(tensor="a.weight", pattern="2:4", part=Part.VISION)}
    fields: dict[str, Any] = {"family": "llava", "state": "merged", "origin": Origin(model="demo", digest="0" * 64)}
    return Manifest(**(fields | {"layers": layers, "history": ()} | changes))


def make(folder: Path, text: str = "weights") -> Artifact:
    with write(folder) as draft:
        (draft.root / "model.safetensors").write_text(text)
        draft.seal(manifest())
    return Artifact.open(folder)


def test_writes_whole_and_reads_back(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    assert artifact.manifest.layers["a"].sparsity.n == 2
    assert list(artifact.manifest.files) == ["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a"), make(tmp_path / "b")
    assert (one.root / "manifest.json").read_bytes() == (other.root / "manifest.json").read_bytes()
    assert one.digest == other.digest


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), write(tmp_path / "a") as draft:
        (draft.root / "model.safetensors").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    killed = OwnFolder(tmp_path / "a.partial").make() / "new"
    killed.mkdir()
    (killed / "model.safetensors").write_text("half")
    for folder in (killed, killed.parent):
        with pytest.raises(InputError, match="not a vlmc artifact"):
            Artifact.open(folder)
    assert make(tmp_path / "a").digest
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_the_user_is_no_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "thesis.txt").write_text("years of work")
    (tmp_path / "a.previous").mkdir()
    (tmp_path / "a.previous" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"a\.partial is in the way and was not made by vlmc"):
        make(tmp_path / "a")
    (tmp_path / "a.partial").rename(tmp_path / "b")
    make(tmp_path / "a", "old")
    replaced(tmp_path / "a")
    assert {(tmp_path / name / "thesis.txt").read_text() for name in ("b", "a.previous")} == {"years of work"}


def replaced(folder: Path) -> None:
    with write(folder, force=True) as draft:
        (draft.root / "model.safetensors").write_text("new")
        draft.seal(manifest())


@pytest.mark.parametrize("whole", [True, False])
def test_a_kill_between_the_two_renames_loses_neither(tmp_path: Path, whole: bool) -> None:
    make(tmp_path / "a", "old")
    scratch = OwnFolder(tmp_path / "a.partial").make()
    if whole:
        make(tmp_path / "b", "new").root.rename(scratch / "new")
    (tmp_path / "a").rename(scratch / "old")
    with pytest.raises(InputError, match="add --force"):
        make(tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").read_text() == ("new" if whole else "old")
    replaced(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path / "a")
    fail_renames(monkeypatch, to=tmp_path / "a", once=True)
    with pytest.raises(OSError, match="no rename"):
        replaced(tmp_path / "a")
    assert Artifact.open(tmp_path / "a").digest == old.digest
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def fail_renames(monkeypatch: pytest.MonkeyPatch, to: Path, *, once: bool) -> None:
    rename, failed = Path.rename, []

    def renamed(path: Path, target: Path) -> Path:
        if target == to and path.name == "new" and not (once and failed):
            failed.append(path)
            raise OSError("no rename")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize("force", [True, False])
def test_a_link_is_never_written_through_nor_replaced(tmp_path: Path, force: bool) -> None:
    make(tmp_path / "real")
    (tmp_path / "a").symlink_to("real")
    with pytest.raises(InputError, match="is a symbolic link"), write(tmp_path / "a", force=force):
        pass
    assert (tmp_path / "a").is_symlink()


def test_a_failed_replacement_keeps_the_old_one(tmp_path: Path) -> None:
    old = make(tmp_path / "a")
    with pytest.raises(RuntimeError), write(tmp_path / "a", force=True):
        raise RuntimeError
    assert Artifact.open(tmp_path / "a").digest == old.digest


def test_does_not_replace_without_force_nor_foreign_folders(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(InputError, match="--force"), write(tmp_path / "a"):
        pass
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a vlmc artifact"), write(tmp_path / "home", force=True):
        pass
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_force_replaces(tmp_path: Path) -> None:
    make(tmp_path / "a", "old")
    with write(tmp_path / "a", force=True) as draft:
        (draft.root / "model.safetensors").write_text("new")
        draft.seal(manifest())
    assert (tmp_path / "a" / "model.safetensors").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_notices_a_file_that_is_missing_short_or_changed(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    weights = artifact.root / "model.safetensors"
    weights.write_text("weightz")
    with pytest.raises(InputError, match="SHA-256 differs"):
        Artifact.open(artifact.root).verify_files()
    weights.write_text("short")
    with pytest.raises(InputError, match="has 5 bytes, the manifest says 7"):
        Artifact.open(artifact.root)
    weights.unlink()
    with pytest.raises(InputError, match="is missing"):
        Artifact.open(artifact.root)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:-20], "cannot be read"),
        (lambda text: "[]", "is not a JSON object"),
        (lambda text: text.replace("2:4", "1:4"), "checksum differs"),
        (lambda text: text.replace('"merged"', '"pruned"'), "checksum differs"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 3'), "upgrade vlmc"),
    ],
)
def test_notices_a_manifest_edited_by_hand(tmp_path: Path, edit: Any, message: str) -> None:
    path = make(tmp_path / "a").root / "manifest.json"
    path.write_text(edit(path.read_text()))
    with pytest.raises(InputError, match=message):
        Artifact.open(tmp_path / "a")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_paths_stay_inside(path: str) -> None:
    with pytest.raises(ValueError, match="inside the artifact"):
        manifest(files={path: {"size": 1, "sha256": "0" * 64}})


def test_the_digest_is_over_the_files_that_make_up_the_model() -> None:
    model = ["model.safetensors", "config.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "masks.safetensors"]
    model += ["adapter/adapter_config.json", "qformer_tokenizer/tokenizer_config.json", "qformer_tokenizer/vocab.txt"]
    added = [
        "README.md",
        "onnx/deployment.json",
        "openvino/graph.xml",
        "reports/eval.json",
        "tensorrt/build.json",
        "plot.png",
    ]
    assert model_files([*added, *model]) == sorted(model)


def test_files_are_as_readable_as_the_umask_allows(tmp_path: Path) -> None:
    with write(tmp_path / "a") as draft:
        (draft.root / "model.safetensors").write_text("weights")
        (draft.root / "model.safetensors").chmod(0o600)
        (tmp_path / "probe").write_text("")
        draft.seal(manifest())
    assert (tmp_path / "a" / "model.safetensors").stat().st_mode == (tmp_path / "probe").stat().st_mode


def test_the_artifact_can_move(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    shutil.move(artifact.root, tmp_path / "b")
    Artifact.open(tmp_path / "b").verify_files()
    assert str(tmp_path) not in (tmp_path / "b" / "manifest.json").read_text()


def test_the_mode_of_a_file_that_is_shared_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("weights")
    source.chmod(0o640)
    with write(tmp_path / "a") as draft:
        (draft.root / "linked.safetensors").hardlink_to(source)
        (draft.root / "behind.safetensors").symlink_to(source)
        draft.seal(manifest())
    assert source.stat().st_mode & 0o777 == 0o640
