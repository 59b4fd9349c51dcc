"""The README's tables follow the results, and a stale one is noticed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import readme
from report import Bar, Report, measured

TABLE = "# vlmc\n\n<!-- table: quality -->\n<!-- end -->\n\nThe rest.\n"


def results() -> Report:
    dense = measured("demo: dense", "accuracy", [92.0], "%")
    pruned = measured("demo: Wanda", "accuracy", [70.0], "%", dense)
    repaired = measured("demo: Wanda + RESSA", "accuracy", [90.0, 91.0], "%", dense)
    settings = {"models": ["demo"], "seeds": 2, "questions": 2000}
    bars = [Bar("demo: kept", "at least 95 %", 98.4, True)]
    return Report("a processor", {}, "2026-01-01", "python benchmarks/quality.py", [dense, pruned, repaired], bars, settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(TABLE, encoding="utf-8")
    results().write(tmp_path / "benchmarks" / "results" / "quality.json")
    return tmp_path


HAS_TABLES = "<!-- table:" in (readme.ROOT / "README.md").read_text(encoding="utf-8")


def run(root: Path, *given: str) -> int:
    return readme.main(["--root", str(root), *given])


@pytest.mark.skipif(not HAS_TABLES, reason="the README has no tables yet")
def test_the_readme_is_what_the_results_say() -> None:
    assert readme.main(["--check"]) == 0


@pytest.mark.integration
def test_a_stale_readme_is_noticed_and_mended(root: Path) -> None:
    assert run(root, "--check") == 1
    assert run(root) == 0
    assert run(root, "--check") == 0
    text = (root / "README.md").read_text(encoding="utf-8")
    assert "| Wanda | 70.0 % | 90.5 % (1.0) | 98.4 % |  |" in text
    assert "a processor, 2026-01-01: `python benchmarks/quality.py`" in text
    assert text.startswith("# vlmc\n\n<!-- table: quality -->\n")
    assert text.endswith("<!-- end -->\n\nThe rest.\n")
    assert run(root) == 0
    assert (root / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.integration
def test_new_results_make_readme_and_picture_stale(root: Path) -> None:
    run(root)
    changed = replace(results(), date="2026-01-02")
    changed.write(root / "benchmarks" / "results" / "quality.json")
    assert run(root, "--check") == 1
    text = (root / "README.md").read_text(encoding="utf-8")
    (root / "README.md").write_text(text.replace("2026-01-01", "2026-01-02"), encoding="utf-8")
    assert run(root, "--check") == 1
    assert run(root) == 0
    assert run(root, "--check") == 0


@pytest.mark.integration
def test_a_missed_target_is_stated(root: Path) -> None:
    bars = [*results().bars, Bar("demo: lead", "above 0 points", -0.4, False)]
    replace(results(), bars=bars).write(root / "benchmarks" / "results" / "quality.json")
    run(root)
    text = (root / "README.md").read_text(encoding="utf-8")
    assert "<details open><summary>1 of 2 targets are missed</summary>" in text
    assert "| demo: lead | above 0 points | -0.4 | **no** |" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: repair -->\n<!-- end -->\n", "benchmarks/results/repair.json, which is missing"),
        ("<!-- table: speed -->\n<!-- end -->\n", "asks for a table speed"),
        ("<!-- table: quality -->\n", "without its '<!-- end -->'"),
    ],
)
@pytest.mark.parametrize("given", [(), ("--check",)])
def test_what_cannot_be_filled_is_one_line(
    root: Path, text: str, message: str, given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "README.md").write_text(text, encoding="utf-8")
    assert run(root, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_broken_results_are_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "benchmarks" / "results" / "quality.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["settings"]["seeds"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert run(root) == 2
    assert capsys.readouterr().err == "readme: benchmarks/results/quality.json cannot be read (KeyError: 'seeds')\n"
