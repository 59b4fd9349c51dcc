"""Adding a folder or reports to an artifact: all of it or nothing, and never outside of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runtime.test_artifact import fail_renames, make, replaced
from vlmc.runtime.artifact import Artifact, extend, put_texts, writing
from vlmc.runtime.artifact.texts import partial_of
from vlmc.runtime.errors import InputError


def test_extending_adds_a_folder_and_keeps_the_digest(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    for content in ("first", "second"):
        with extend(Artifact.open(artifact.root), "onnx") as folder:
            (folder / "graph.onnx").write_text(content)
    extended = Artifact.open(artifact.root)
    extended.verify_files()
    assert (artifact.root / "onnx" / "graph.onnx").read_text() == "second"
    assert extended.digest == artifact.digest


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


def test_an_artifact_replaced_while_a_folder_is_filled_is_one_line(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    with pytest.raises(InputError, match="a was replaced or moved away meanwhile"), extend(artifact, "onnx") as folder:
        with writing.write(artifact.root, force=True) as draft:
            (draft.root / "other.txt").write_text("another model")
            draft.seal(artifact.manifest)
        (folder / "graph.onnx").write_text("half")
    Artifact.open(artifact.root).verify_files()
    assert sorted(path.name for path in artifact.root.iterdir()) == ["manifest.json", "other.txt"]


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


def test_a_folder_in_place_of_a_file_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    (artifact.root / "reports" / "eval.json").mkdir(parents=True)
    before = sorted(artifact.root.rglob("*"))
    with pytest.raises(InputError, match="is a folder, and a file is to be written there: move it away"):
        put_texts(artifact, {"reports/eval.json": "{}"})
    with pytest.raises(IsADirectoryError):
        writing.write_text(artifact.root / "reports" / "eval.json", "{}")
    assert sorted(artifact.root.rglob("*")) == before


def test_a_linked_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    (tmp_path / "mine.txt").write_text("the user's")
    for name in ("README.md", partial_of(Path("README.md")).name):
        (artifact.root / name).symlink_to(tmp_path / "mine.txt")
    put_texts(artifact, {"README.md": "card"})
    assert (tmp_path / "mine.txt").read_text() == "the user's"
    assert (artifact.root / "README.md").read_text() == "card"


def test_files_that_are_named_as_if_they_were_half_written_are_left_alone(tmp_path: Path) -> None:
    artifact = make(tmp_path / "a")
    for name in ("README.md.partial", "manifest.json.partial"):
        (artifact.root / name).write_text("the user's")
    put_texts(artifact, {"README.md": "card"})
    for name in ("README.md.partial", "manifest.json.partial"):
        assert (artifact.root / name).read_text() == "the user's"
    assert not list(artifact.root.glob(".*partial"))


def test_reports_are_listed_beside_those_that_stand(tmp_path: Path) -> None:
    artifact = put_texts(make(tmp_path / "a"), {"reports/one.json": "{}"})
    artifact = put_texts(artifact, {"reports/two.json": "{}", "README.md": "card"})
    artifact.verify_files()
    assert list(artifact.manifest.files) == ["README.md", "model.safetensors", "reports/one.json", "reports/two.json"]
