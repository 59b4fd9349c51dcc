"""The benchmark of packed products: every row on tiny products, right answers, and the bars."""

import cpu24
import numpy as np
import pytest
from products.contestants import DENSE, OPENVINO_BF16, ORT, OURS, TORCH, contestants
from products.subject import Subject
from report import Report

from tests.runtime.kernels.material import needs_library

pytestmark = needs_library
TINY = cpu24.Work(((64, 48),), (1, 16), 1, 1 << 14)


@pytest.fixture(scope="module")
def found() -> Report:
    return cpu24.run(TINY, 1, "line")


def test_every_contestant_multiplies() -> None:
    subject = Subject.of(64, 48, 1 << 14)
    assert subject.copies > 1
    x = subject.x(3)
    expected = x @ subject.weights[0].T
    for name, one in contestants(subject, 1).items():
        np.testing.assert_allclose(one.answer(x), expected, rtol=0.05, atol=0.05, err_msg=name)
        one.prepared(x)()


def test_every_product_has_its_rows_and_bars(found: Report) -> None:
    for name in (ORT, TORCH, DENSE, *OURS):
        for rows in ("1 row", "16 rows"):
            assert found.value(f"64 to 48, {rows}: {name}", cpu24.TIME)
        assert found.value(f"64 to 48, 1 row: {name}", cpu24.SHARE)
    assert found.value(f"64 to 48, 16 rows: {next(iter(OURS))}", cpu24.SPEED)
    assert len(found.bars) == 4


def test_what_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu24, "find_spec", lambda name: None)
    report = cpu24.run(cpu24.Work((), (), 1, 1 << 14), 1, "line")
    assert [row.value for row in report.rows if row.name == f"{OPENVINO_BF16}: not installed"] == [None]


def test_a_ratio_is_taken_round_by_round() -> None:
    times = {ORT: [2.0, 6.0], "x": [1.0, 2.0]}
    assert cpu24._gains(times, ORT, "x") == [2.0, 3.0]
