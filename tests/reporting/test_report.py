"""The report: one page from all that an artifact holds, whatever its names are."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome

from tests import pico
from tests.artifacts import pruned
from tests.browser import SHOTS, browser, needs_browser, screen
from tests.reporting.material import Seen
from vlmc.runtime.artifact import Artifact, put_texts
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate.compare import record
from vlmc.toolchain.evaluate.examples import SIDE, differing
from vlmc.toolchain.machine import durations
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.reporting import report_page
from vlmc.toolchain.reporting.page_parts import Curve, document, plot
from vlmc.toolchain.reporting.paths import BENCH, CURVES, EVALUATION, EXAMPLES, LAYERS, PAGE

__all__ = ["browser"]  # the fixture

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
CSV = """step,lr,loss,task,kl,hidden,norm,skipped,validation
1,0.1,4,3,2,0,1,0,
2,0.2,nan,nan,nan,0,nan,1,
3,0.1,2,1,2,0,1,0,1.5
"""


def evaluation(name: str) -> dict[str, Any]:
    models = {one: {"overall": 0.5, "by_kind": {name: 0.5}, "count": 8} for one in ("dense", name)}
    return {"data": name, "split": name, "count": 8, "models": models}


def examples(name: str) -> dict[str, Any]:
    texts = dict.fromkeys(("kind", "question", "expected", "dense", "compressed"), name)
    return {"count": 8, "differing": 1, "examples": [{**texts, "images": [base64.b64encode(b"no picture").decode(), name]}]}


def bench(name: str) -> dict[str, Any]:
    one = {"median": 0.001, "spread": 0.0001}
    rows = {name: {"bytes": 8, "peak_memory": None, "seconds": {name: one}, "of_dense": {name: one}}}
    return {"engine": name, "machine": name, "date": name, "rounds": 3, "rows": rows}


def layers(name: str, change: float | None = 0.25) -> dict[str, Any]:
    one = {"part": name, "pattern": name, "rows": 4, "columns": 8, "sparsity": 0.5, "change": change}
    return {"digest": "0", "dense": change is not None, "layers": {name: one}}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "pruned")


def test_names_are_text() -> None:
    sections = [
        *report_page.examples(examples(HOSTILE)),
        *report_page.bench(bench(HOSTILE)),
        *report_page.layers(layers(HOSTILE)),
        plot(HOSTILE, [Curve(HOSTILE, [(0, 1), (1, 2)])]),
    ]
    seen = Seen(document(HOSTILE, sections))
    assert "script" not in seen.tags
    assert seen.handlers == []
    assert all(place.startswith("data:image/jpeg;base64,") for place in seen.refers)
    assert seen.text.count(HOSTILE) > 10


def test_curves_leave_skipped_steps_out_and_mark_the_validation() -> None:
    drawn = "".join(report_page.curves(CSV))
    assert "nan" not in drawn
    assert drawn.count("<circle") == 1
    assert drawn.count("<polyline") == 5  # loss, task, kl, validation; the learning rate
    assert plot("nothing", [Curve("none", [(0.0, float("nan"))])]) == ""


def test_damage_is_drawn_in_shares_of_the_worst_layer_and_told_where_it_is_not_known() -> None:
    found = layers("a")
    found["layers"]["b"] = {**found["layers"]["a"], "change": 0.5}
    drawn = "".join(report_page.layers(found))
    assert "<title>b: 50.0 %</title>" in drawn
    assert drawn.index("<td>b</td>") < drawn.index("<td>a</td>")
    assert "was not found" in "".join(report_page.layers(layers("a", None)))


def test_examples_are_what_was_right_before_each_kind_in_turn_with_small_pictures(tmp_path: Path) -> None:
    pico.picture(0, 640, 480).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    kinds, images = ["x", "x", "y", "x"], ["a.png", "a.png", "b.png", "a.png"]
    samples = [
        Sample(str(n), (tmp_path / image,), "<image>\nwhat ?", "yes", kind)
        for n, (kind, image) in enumerate(zip(kinds, images, strict=True))
    ]
    found = differing(samples, ["yes", "yes", "yes", "no"], ["no", "No.", "no", "yes"], 3)
    assert [one["kind"] for one in found] == ["x", "y", "x"]
    assert found[0]["question"] == "what ?"
    assert found[1]["images"] == []
    with Image.open(io.BytesIO(base64.b64decode(found[0]["images"][0]))) as small:
        assert max(small.size) == SIDE
    assert differing(samples, ["yes"] * 4, ["Yes."] * 4, 3) == []


def test_times_are_those_of_the_digest() -> None:
    durations.note("abc", 12.34)
    assert durations.noted("abc") == 12.3
    assert durations.noted("abd") is None


@pytest.mark.integration
def test_the_page_is_made_of_the_artifacts_own_reports(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(artifact.root)]) == 0
    assert capsys.readouterr().out == f"{artifact.root / PAGE}\n"
    found = json.loads((artifact.root / LAYERS).read_text())["layers"]
    assert found.keys() == artifact.manifest.layers.keys()
    assert all(one["sparsity"] == 0.5 and 0 < one["change"] < 1 for one in found.values())
    put_texts(Artifact.open(artifact.root), {BENCH: json.dumps(bench("b")), CURVES: CSV})
    record(Artifact.open(artifact.root), evaluation("count"), Progress(quiet=True), examples("what"))
    seen = Seen((artifact.root / PAGE).read_text(encoding="utf-8"))
    for told in (
        "Where dense and compressed differ",
        "exact match on 8 questions",
        "The repair's curves",
        "Speed",
        "1. prune, ",
    ):
        assert told in seen.text
    assert "script" not in seen.tags
    Artifact.open(artifact.root).verify_files()
    assert PAGE not in Artifact.open(artifact.root).manifest.files


@pytest.mark.integration
def test_a_damaged_report_is_one_line_and_leaves_the_page(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(artifact.root), "--quiet"]) == 0
    before = (artifact.root / PAGE).read_bytes()
    damaged = put_texts(Artifact.open(artifact.root), {EXAMPLES: '{"examples": [{}]}'})
    assert run(["report", str(artifact.root)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "reports/examples.json cannot be read (KeyError: " in error
    record(damaged, evaluation("count"), Progress())
    assert "the report was not written again" in capsys.readouterr().err
    assert (artifact.root / EVALUATION).is_file()
    assert (artifact.root / PAGE).read_bytes() == before


@pytest.mark.integration
def test_a_link_in_place_of_the_reports_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (artifact.root / "reports").symlink_to(tmp_path / "elsewhere")
    assert run(["report", str(artifact.root), "--quiet"]) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.integration
def test_without_the_dense_model_it_says_what_it_cannot_tell(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    (artifact.root.parent / "dense").rename(artifact.root.parent / "gone")
    assert run(["report", str(artifact.root)]) == 0
    assert "does not tell how far weights moved" in capsys.readouterr().err
    assert "was not found" in (artifact.root / PAGE).read_text(encoding="utf-8")
    assert run(["report", str(artifact.root), "--dense", str(artifact.root.parent / "gone")]) == 0
    assert "the 8 most damaged" in (artifact.root / PAGE).read_text(encoding="utf-8")
    assert run(["report", str(artifact.root), "--dense", "nothing-there"]) == 2


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_a_desk_in_light_and_dark(browser: Chrome, tmp_path: Path, width: int, scheme: str) -> None:
    many = layers("a")
    many["layers"] = {f"model.layers.{n}.{'long' * 20}": many["layers"]["a"] for n in range(250)}
    parts = [*report_page.layers(many), *report_page.curves(CSV), *report_page.examples(examples("x" * 200))]
    (tmp_path / "page.html").write_text(document("model" * 40, [*parts, *report_page.bench(bench("one"))]), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen(width))
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    ink = browser.execute_script("return getComputedStyle(document.body).color")
    assert (ink == "rgb(0, 0, 0)") == (scheme == "light")
    if SHOTS:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen(width, 2400))
        browser.save_screenshot(f"{SHOTS}/report-{width}-{scheme}.png")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
