"""What is left of a training run: the table, the plot, the figures of the history, and TensorBoard's curves."""

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.repair import material
from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain.repair.training import reports, write_reports
from vlmc.toolchain.repair.training.board import board
from vlmc.toolchain.repair.training.reports import smoothed, summary
from vlmc.toolchain.repair.training.trainer import StepLog
from vlmc.toolchain.stages.repair import Repair

NAN = float("nan")
RECORDS = [StepLog(0.1, 10.0 - step, 4.0, 2.0, 0.0, 1.0, 0.0) for step in range(1, 5)]
RECORDS += [StepLog(0.1, NAN, NAN, 1.0, 0.0, NAN, 1.0)]


def test_the_table_has_every_step_and_the_validation_losses(tmp_path: Path) -> None:
    write_reports(tmp_path, RECORDS, {2: 0.5, 4: 0.25})
    rows = list(csv.DictReader((tmp_path / "reports" / "repair.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["loss"] for row in rows] == ["9", "8", "7", "6", "nan"]
    assert [row["skipped"] for row in rows] == ["0", "0", "0", "0", "1"]
    assert [row["validation"] for row in rows] == ["", "0.5", "", "0.25", ""]


def test_the_summary_leaves_skipped_steps_out_and_counts_them() -> None:
    found = summary(RECORDS, {2: 0.5, 4: 0.25})
    assert (found["first_loss"], found["last_loss"]) == (9.0, 6.0)
    assert (found["steps_done"], found["skipped"]) == (5, 1)
    assert (found["best_validation"], found["best_step"]) == (0.25, 4)
    assert summary(RECORDS[-1:], {}) == {"steps_done": 1, "skipped": 1}


@pytest.mark.integration
def test_the_plot_is_drawn_where_matplotlib_is_and_is_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reports(tmp_path / "without", RECORDS, {})
    assert not (tmp_path / "without" / "reports" / "repair.png").exists()
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(reports, "can_draw", lambda: True)
    for name in ("one", "two"):
        write_reports(tmp_path / name, RECORDS, {2: 0.5})
    one, two = ((tmp_path / name / "reports" / "repair.png").read_bytes() for name in ("one", "two"))
    assert one == two
    with Image.open(tmp_path / "one" / "reports" / "repair.png") as plot:
        assert np.asarray(plot.convert("L")).std() > 10  # curves, not an empty page


def test_curves_are_smoothed_over_the_steps_before_and_skipped_steps_are_left_out() -> None:
    assert smoothed([4.0, NAN, 2.0], 1) == [4.0, 4.0, 2.0]
    assert smoothed([NAN, 4.0, 1.0], 2)[1:] == [4.0, 2.0]  # (1/2 4 + 1) / (1/2 + 1)
    noisy = [float(step % 2) for step in range(100)]
    assert all(abs(value - 0.5) < 0.03 for value in smoothed(noisy, 20)[50:])


@pytest.mark.integration
def test_the_plot_has_smoothed_and_raw_losses_the_learning_rate_and_the_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    figure_of = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr("matplotlib.figure.Figure", lambda **given: figures.append(figure_of(**given)) or figures[0])
    records = [StepLog(0.001 * step, 5.0 + (step % 2), 4.0, 2.0, 0.0, 1.0, 0.0) for step in range(1, 91)]
    reports._plot(tmp_path / "plot.png", records, {45: 3.0, 90: 2.5})
    losses, rates = figures[0].axes
    drawn = {line.get_label(): line for line in losses.lines}
    assert {"loss", "task", "kl", "task, validation"} <= drawn.keys()
    assert max(drawn["loss"].get_ydata()[30:]) - min(drawn["loss"].get_ydata()[30:]) < 0.5
    faint = [line for line in losses.lines if line.get_alpha() is not None]
    assert list(faint[0].get_ydata()) == [record.loss for record in records]
    assert list(drawn["task, validation"].get_ydata()) == [3.0, 2.5]
    assert list(rates.lines[0].get_ydata()) == [record.lr for record in records]


class Writer:
    """Stands in for TensorBoard's writer."""

    points: list[tuple[str, float, int]] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int) -> None:
        self.points.clear()
        self.points.append((folder, 0.0, purge_step))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.points.append(("closed", 0.0, 0))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.append((name, value, step))


@pytest.mark.integration
def test_tensorboard_gets_every_curve_and_the_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    adapters = []
    for folder in (None, str(tmp_path / "curves")):
        options = material.OPTIONS.model_copy(update={"steps": 3, "tensorboard": folder})
        artifact = Repair(options, samples=material.samples()).run(source, tmp_path / f"out-{folder is None}")
        adapters.append((artifact.root / "manifest.json").read_bytes())
    assert adapters[0] == adapters[1]
    assert Writer.points[0] == (str(tmp_path / "curves"), 0.0, 1)
    assert Writer.points[-1][0] == "closed"
    assert {(name, step) for name, _, step in Writer.points[1:-1]} == {
        (f"repair/{name}", step) for name in StepLog._fields for step in (1, 2, 3)
    }


def test_tensorboard_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentLacks, match="pip install tensorboard"), board("curves"):
        pass
