"""A backend is one folder and one line: everybody else reads its descriptor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import pico
from tests.artifacts import pruned
from vlmc import exporters
from vlmc.exporters.backend import Backend, Table, resolve
from vlmc.exporters.base import Exporter, Options, Progress
from vlmc.exporters.graphs import GraphSpec
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.runtime.sessions import SESSIONS
from vlmc.toolchain.machine import doctor
from vlmc.toolchain.machine.progress import Progress as Bar
from vlmc.toolchain.reporting.inspection import overview, show_overview
from vlmc.toolchain.reporting.tables import show_export
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

pytestmark = pytest.mark.integration

PAPER = Backend(
    name="paper",
    title="paper graphs",
    extra="paper",
    exporter="tests.exporters.test_backends:PaperExporter",
    suffix=".paper",
    report="paper.json",
    tables="tests.exporters.test_backends:tables",
    packages={"no-such-package": "export to paper"},
    options={"precision": "fp16"},
)


class PaperExporter(Exporter):
    backend: ClassVar[Backend] = PAPER

    def requires(self) -> None:
        pass

    def check(self, options: Options) -> None:
        assert options.precision == "fp16"

    def export(self, specs: Sequence[GraphSpec], folder: Path, options: Options, progress: Progress) -> dict[str, Any]:
        for spec in specs:
            (folder / f"{spec.name}.paper").write_text("x" * 1000)
        return {"backend": "paper", "graphs": [spec.name for spec in specs]}


def tables(report: dict[str, Any]) -> list[Table]:
    return [Table(("graph",), [(name,) for name in report["graphs"]], ["drawn by hand"])]


@pytest.mark.parametrize("backend", exporters.BACKENDS.values(), ids=list(exporters.BACKENDS))
def test_what_a_descriptor_names_is_there(backend: Backend) -> None:
    assert resolve(backend.exporter).backend is backend
    assert all(callable(resolve(name)) for name in (backend.tables, backend.session, backend.verifier) if name)
    assert set(backend.options) <= set(ExportSettings.model_fields)
    assert exporters.of_file(Path(f"graph{backend.suffix}")) is backend
    if backend.session is not None:
        runs = SESSIONS[backend.name]
        assert (runs.suffix, runs.opens) == (backend.suffix, resolve(backend.session))


def test_a_new_one_is_exported_inspected_and_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(exporters.BACKENDS, "paper", PAPER)
    made = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(), "paper", Bar(quiet=True)).run(made)
    opened = Artifact.open(made.root)
    assert opened.digest == made.digest
    assert "onnxruntime" not in report["versions"]
    assert {path for path in opened.manifest.files if path.startswith("paper/")} == {
        *(f"paper/{name}.paper" for name in report["graphs"]),
        "paper/deployment.json",
        "paper/paper.json",
    }
    found = overview(opened)
    assert found["bytes"]["paper"] > 3000
    show_overview(found)
    show_export(report, Path("artifact/genai"))
    shown = capsys.readouterr().out
    assert shown.endswith("for onnxruntime-genai: artifact/genai\n")
    assert "paper graphs" in shown
    assert "vision_encoder" in shown
    assert "drawn by hand" in shown


def test_doctor_says_how_to_get_what_a_backend_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    missing = doctor.examine()["missing"]
    assert missing["onnxscript"] == "pip install 'vlmc[onnx]'"
    assert missing["tensorrt-rtx"] == "pip install 'vlmc[tensorrt-rtx]'"


def test_an_option_that_a_backend_lacks_is_refused(tmp_path: Path) -> None:
    made = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "artifact")
    with pytest.raises(InputError, match="--gpu is not an option of onnx: leave it out"):
        Export(ExportSettings(gpu="sm86"), "onnx", Bar(quiet=True)).run(made)
