import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vlmc.runtime.artifact import Artifact, Layer, Manifest, Origin, Part, extend, put_texts, write, writing
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


def test_extending_adds_a_folder_and_keeps_the_digest(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    for content in ("first", "second"):
        with extend(Artifact.open(artifact.root), "onnx") as folder:
            (folder / "graph.onnx").write_text(content)
    extended = Artifact.open(artifact.root)
    extended.verify_files()
    assert (artifact.root / "onnx" / "graph.onnx").read_text() == "second"
    assert extended.digest == artifact.digest


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


def test_a_failed_extension_changes_nothing(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    before = {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError), extend(artifact, "onnx") as folder:
        (folder / "graph.onnx").write_text("half")
        raise RuntimeError
    assert {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()} == before


def test_a_failed_exchange_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make(tmp_path / "a")
    with extend(artifact, "onnx") as folder:
        (folder / "graph.onnx").write_text("old")
    before = {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()}
    fail_renames(monkeypatch, to=artifact.root / "onnx", once=False)
    with pytest.raises(OSError, match="no rename"), extend(Artifact.open(artifact.root), "onnx") as folder:
        (folder / "graph.onnx").write_text("new")
    assert {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("had", [True, False])
def test_a_manifest_that_cannot_be_written_undoes_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had: bool
) -> None:
    artifact = make(tmp_path / "a")
    if had:
        with extend(artifact, "onnx") as folder:
            (folder / "graph.onnx").write_text("old")
    before = {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()}
    fail_writing(monkeypatch, "manifest.json", 2)
    with pytest.raises(OSError, match="disk is full"), extend(artifact, "onnx") as folder:
        (folder / "graph.onnx").write_text("new")
    assert {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()} == before


def fail_writing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the `number`-th writing of a file of that name fail."""
    plain, count = writing.write_text, []

    def fail(path: Path, text: str) -> None:
        if path.name == name:
            count.append(path)
            if len(count) == number:
                raise OSError("the disk is full")
        plain(path, text)

    monkeypatch.setattr(writing, "write_text", fail)


def test_reports_that_cannot_be_written_leave_the_old_ones_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = put_texts(make(tmp_path / "a"), {"reports/eval.json": "old", "README.md": "old"})
    fail_writing(monkeypatch, "README.md", 1)
    with pytest.raises(OSError, match="disk is full"):
        put_texts(artifact, {"reports/eval.json": "new", "README.md": "new"})
    left = Artifact.open(artifact.root)
    left.verify_files()
    assert left.card_note is None
    assert list(left.manifest.files) == list(artifact.manifest.files)
    assert (left.root / "reports" / "eval.json").read_text() == "new"


def test_two_that_add_to_one_artifact_keep_what_the_other_added(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    with extend(artifact, "onnx") as graphs:
        (graphs / "graph.onnx").write_text("graph")
        put_texts(artifact, {"reports/eval.json": "{}"})
        with extend(artifact, "tensorrt") as engines:
            (engines / "graph.engine").write_text("engine")
        with pytest.raises(InputError, match=r"another process is writing .*onnx"):
            in_a_thread(lambda: extend(artifact, "onnx").__enter__())
    both = Artifact.open(artifact.root)
    both.verify_files()
    assert list(both.manifest.files) == [
        "model.safetensors",
        "onnx/graph.onnx",
        "reports/eval.json",
        "tensorrt/graph.engine",
    ]


def in_a_thread(act: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


def test_results_of_another_model_are_not_written(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    replaced(tmp_path / "a")
    with pytest.raises(InputError, match="was replaced by another model meanwhile"):
        put_texts(artifact, {"reports/eval.json": "{}"})


@pytest.mark.parametrize("put", [lambda one: put_texts(one, {"reports/eval.json": "{}"}), lambda one: fill(one, "reports")])
def test_nothing_is_written_outside_through_a_link(tmp_path: Path, put: Callable[[Artifact], object]) -> None:
    artifact = make(tmp_path / "a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "eval.json").write_text("the user's")
    (artifact.root / "reports").symlink_to("../outside")
    before = (artifact.root / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="reports is not a folder of the artifact, but a link"):
        put(artifact)
    assert (tmp_path / "outside" / "eval.json").read_text() == "the user's"
    assert (artifact.root / "manifest.json").read_bytes() == before


def fill(artifact: Artifact, name: str) -> None:
    with extend(artifact, name):
        raise AssertionError("the work began")


def test_a_linked_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    (tmp_path / "mine.txt").write_text("the user's")
    for name in ("README.md", "README.md.partial"):
        (artifact.root / name).symlink_to(tmp_path / "mine.txt")
    put_texts(artifact, {"README.md": "card"})
    assert (tmp_path / "mine.txt").read_text() == "the user's"
    assert (artifact.root / "README.md").read_text() == "card"


def test_reports_are_listed_beside_those_that_stand(tmp_path: Path) -> None:
    artifact = put_texts(make(tmp_path / "a"), {"reports/one.json": "{}"})
    artifact = put_texts(artifact, {"reports/two.json": "{}", "README.md": "card"})
    artifact.verify_files()
    assert list(artifact.manifest.files) == ["README.md", "model.safetensors", "reports/one.json", "reports/two.json"]


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
