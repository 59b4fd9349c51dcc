"""What all benchmarks share: rows, bars, the JSON form, the command line that is reported."""

import json
import re
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest
import report

FORM = {"machine", "versions", "date", "command", "rows", "bars", "settings"}


def one() -> report.Report:
    base = report.measured("dense", "accuracy", [80.0], "%")
    row = report.measured("pruned", "accuracy", [60.0, 61.0, 65.0], "%", base)
    return report.report("python benchmarks/one.py", [base, row], [report.at_least("kept", 75, 77.5, "%")], {"seeds": 3})


def test_a_row_is_the_mean_of_its_repeats_beside_its_baseline() -> None:
    base, row = one().rows
    assert (base.value, base.baseline, base.ratio, base.spread) == (80.0, None, None, None)
    assert (row.value, row.baseline, row.ratio, row.spread) == (62.0, "dense", 0.775, 5.0)


def test_a_baseline_of_zero_gives_no_ratio() -> None:
    base = report.measured("dense", "accuracy", [0.0], "%")
    assert report.measured("pruned", "accuracy", [1.0], "%", base).ratio is None


def test_small_values_keep_their_digits() -> None:
    assert report.measured("demo", "peak lr", [1 / 3000], "").value == 0.000333


def test_halves_are_rounded_up() -> None:
    assert [report.tenths(number) for number in (99.05, 98.25, 98.24, 0.0)] == ["99.1", "98.3", "98.2", "0.0"]


def test_a_bar_holds_from_its_goal_on() -> None:
    assert report.at_least("kept", 95, 95.0, "%").holds
    assert not report.at_least("kept", 95, 94.999, "%").holds


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "one.json"
    one().write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == FORM
    assert content["rows"][1].keys() == {"name", "baseline", "metric", "value", "unit", "ratio", "spread"}
    assert content["bars"] == [{"name": "kept", "goal": "at least 75 %", "value": 77.5, "holds": True}]
    assert report.Report.read(path) == one()


def test_the_machine_is_named_in_words() -> None:
    assert "cores" in report.machine()
    assert "thread" in report.machine()
    assert "/" not in report.machine()


def test_the_command_leaves_out_where_the_result_went() -> None:
    given = ["--quick", "--out", "some/where.json", "--models", "demo"]
    assert report.command("quality", given) == "python benchmarks/quality.py --quick --models demo"


def test_a_quick_run_writes_only_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.finish(one(), "one", Namespace(quick=True, out=None))
    assert not list(tmp_path.iterdir())
    report.finish(one(), "one", Namespace(quick=True, out=tmp_path / "quick.json"))
    report.finish(one(), "one", Namespace(quick=False, out=None))
    assert {path.name for path in tmp_path.iterdir()} == {"quick.json", "one.json"}
    assert capsys.readouterr().out.count("77.5    holds") == 3


def test_a_target_that_is_missed_is_shouted(capsys: pytest.CaptureFixture[str]) -> None:
    missed = report.at_least("kept", 75, 70, "%")
    report.report("line", one().rows, [missed], {}).show()
    assert "DOES NOT HOLD" in capsys.readouterr().out


SCRIPTS = [path.stem for path in Path(report.__file__).parent.glob("*.py") if "def main(given" in path.read_text()]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        import_module(name).main(["--help"])
    assert ended.value.code == 0
    assert "options:" in capsys.readouterr().out


ROOT = report.RESULTS.parent.parent
TABLE = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
PLACES = [
    pytest.param(page, name, text, id=f"{page.name}: {name}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for name, text in TABLE.findall(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "name", "text"), PLACES)
def test_every_target_stands_where_its_table_does_reached_or_not(page: Path, name: str, text: str) -> None:
    lines = text.splitlines()
    for bar in report.Report.read(report.RESULTS / f"{name}.json").bars:
        verdict = "yes" if bar.holds else "no"
        of_it = [line for line in lines if bar.goal in line and bar.name.partition(":")[0] in line]
        assert any(verdict in line.replace("*", "").split("|")[-2] or f"| {verdict} |" in line for line in of_it), bar.name
