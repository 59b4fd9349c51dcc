from pathlib import Path

import pytest
from PIL import Image

from tests.study.material import made_up, record
from vlmc.runtime.artifact import sha256_file
from vlmc.toolchain.settings import SweepSettings
from vlmc.toolchain.study import figures

OPTIONS = SweepSettings(sums="100,120", shares="20:80,70:30,50:50", targets="2:4,4:8")


def percent(vision: str, language: str) -> float:
    return pytest.approx(100 * made_up(vision, language).accuracy)


def test_each_sum_is_a_line_over_visions_share() -> None:
    (axes,) = figures.split_figure(record(OPTIONS)).axes
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    dense = next(line for label, line in lines.items() if label.startswith("dense"))
    assert list(dense.get_ydata()) == [percent("none", "none")] * 2
    assert dense.get_linestyle() == "--"
    assert list(lines["sum 100 %"].get_xdata()) == [20, 50, 70]
    assert list(lines["sum 100 %"].get_ydata()) == [percent("20%", "80%"), percent("50%", "50%"), percent("70%", "30%")]
    assert list(lines["sum 120 %"].get_ydata()) == [percent("24%", "96%"), percent("60%", "60%"), percent("84%", "36%")]
    ticks = dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))
    assert ticks == {20: "20:80", 50: "50:50", 70: "70:30"}
    assert "1,234 questions (%)" in axes.get_ylabel()
    assert "% of the sum" in axes.get_xlabel()
    assert "pico, wanda" in axes.get_title()


def test_lines_can_be_told_apart_however_many() -> None:
    sums = ",".join(str(number) for number in range(60, 140, 10))
    (axes,) = figures.split_figure(record(OPTIONS.model_copy(update={"sums": sums}))).axes
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.get_lines()]
    assert len(set(looks)) == len(looks) == 9


def test_a_skipped_share_leaves_a_gap_in_its_line_alone() -> None:
    (axes,) = figures.split_figure(record(OPTIONS.model_copy(update={"sums": "100,130"}))).axes
    points = {str(line.get_label()): list(line.get_xdata()) for line in axes.get_lines()}
    assert points["sum 100 %"] == [20, 50, 70]
    assert points["sum 130 %"] == [50, 70]


def test_bars_are_dense_then_three_a_target() -> None:
    (axes,) = figures.where_figure(record(OPTIONS)).axes
    ticks = {label.get_text(): place for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert list(ticks) == ["dense", "2:4", "4:8"]
    bars = sorted((bar.get_x() + bar.get_width() / 2, bar.get_height(), bar.get_facecolor()) for bar in axes.patches)
    expected = [("none", "none")]
    for target in ("2:4", "4:8"):
        expected += [(target, target), (target, "none"), ("none", target)]
    assert [height for _, height, _ in bars] == [percent(*towers) for towers in expected]
    places = [place for place, _, _ in bars]
    assert places[0] == pytest.approx(ticks["dense"])
    assert places[2] == pytest.approx(ticks["2:4"])
    assert places[5] == pytest.approx(ticks["4:8"])
    assert len({colour for _, _, colour in bars}) == 4
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == [
        "vision + language",
        "vision only",
        "language only",
    ]
    shown = sorted(float(text.get_text()) for text in axes.texts)
    assert shown == pytest.approx(sorted(round(height, 1) for _, height, _ in bars))


@pytest.mark.integration
def test_they_are_small_pngs_that_name_their_source(tmp_path: Path) -> None:
    found = record(OPTIONS)
    found.write(tmp_path)
    figures.draw(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.png", "sweep.json", "where.png"]
    for name in (figures.SPLIT, figures.WHERE):
        with Image.open(tmp_path / name) as opened:
            assert (opened.format, opened.size) == ("PNG", (1008, 588))
            assert opened.info["Description"] == f"sweep.json, SHA-256 {sha256_file(tmp_path / 'sweep.json')}"
        assert (tmp_path / name).stat().st_size < 100_000
    before = (tmp_path / figures.SPLIT).read_bytes()
    figures.draw(found, tmp_path)
    assert (tmp_path / figures.SPLIT).read_bytes() == before
