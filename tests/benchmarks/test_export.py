"""The benchmark of export: its bars count families, and its page's table comes from its results."""

import export as benchmark
import export_large
from pages import DOCS, with_table
from report import RESULTS, Report, Row

from tests import pico


def rows(family: str, **changed: float | None) -> list[Row]:
    """Return what the benchmark writes of a family with one graph."""
    found = []
    for kind in ("fp32", "fp16"):
        values = {
            f"export time, {kind}": (f"{family}: decoder", 1.0),
            f"largest error, {kind}": (f"{family}: decoder", 1e-6),
            f"answers equal, {kind}": (family, 100.0),
            f"tokens compared, {kind}": (family, 128.0),
            f"engine, {kind}": (f"{family}: decoder", 5.0),
        }
        for metric, (name, value) in values.items():
            given = changed.get(metric.replace(", ", "_").replace(" ", "_"), value)
            found.append(Row(name, None, metric, given, "", None, None))
    return found


def counts(found: list[Row]) -> list[float]:
    return [bar.value for bar in benchmark.bars(["a", "b"], found)]


def test_bars_count_families_that_agree_and_are_built() -> None:
    assert counts(rows("a") + rows("b")) == [2, 2, 2, 2]
    assert counts(rows("a") + rows("b", largest_error_fp32=1e-3)) == [1, 2, 2, 2]
    assert counts(rows("a") + rows("b", largest_error_fp16=1e-3)) == [2, 2, 2, 2]
    assert counts(rows("a") + rows("b", answers_equal_fp16=80.0)) == [2, 2, 1, 2]
    assert counts(rows("a") + rows("b", engine_fp32=None)) == [2, 1, 2, 2]
    lost = [Row("b: not exported in fp32: it broke: twice", None, "export, fp32", None, "", None, None)]
    assert counts(rows("a") + lost) == [1, 1, 1, 1]
    assert all(bar.holds == (bar.value == 2) for bar in benchmark.bars(["a", "b"], rows("a") + lost))


def test_what_failed_stands_below_the_table() -> None:
    found = rows("a") + rows("b", engine_fp16=None)
    report = Report("here", {}, "today", "it", found, benchmark.bars(["a", "b"], found), {"families": ["a", "b"], "jobs": 1})
    text = benchmark.table(report)
    assert "| `b` | 1 | 1.0e-06 | 1.0e-06 | 100 % (128 tokens) | 100 % (128 tokens) | 1 of 1 | 0 of 1 | 1 s |" in text
    assert "| built in fp16 with TensorRT-RTX | all 2 families | 1 | **no** |" in text
    assert "- b: decoder (engine, fp16)" in text


def test_the_page_shows_the_results() -> None:
    found = Report.read(RESULTS / "export.json")
    text = benchmark.PAGE.read_text(encoding="utf-8")
    assert with_table(text, benchmark.NAME, benchmark.table(found)) == text
    assert benchmark.PAGE.parent == DOCS
    assert found.settings["families"] == list(pico.FAMILIES)


def test_a_large_shapes_table_has_its_memory() -> None:
    found = Report.read(RESULTS / "export_large.json")
    told = export_large.table(found)
    assert with_table(f"<!-- table: {export_large.NAME} -->\n<!-- end -->\n", export_large.NAME, told)
    assert f"| fp16 | {found.value('fp16', export_large.SIZE):,.0f} MB |" in told
