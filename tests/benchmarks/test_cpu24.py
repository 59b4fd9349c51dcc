"""The benchmark of packed products: every row on tiny products, right answers, and the bars."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cpu24
import cpu24_table
import numpy as np
import onnx
import pytest
from decoders import measuring
from decoders.reporting import PREDICTED, measure
from decoders.shapes import SHAPES
from pages import with_table
from products import contestants as contestants_module
from products.contestants import BITS, DENSE, HALF, INTEGER, OPENVINO_BF16, ORT, OURS, TORCH, contestants
from products.subject import Subject
from report import RESULTS, Bar, Report, Row

from tests.runtime.kernels.material import needs_library

pytestmark = needs_library
TINY = cpu24.Work(((64, 48),), (1, 16), 1, 1 << 14)


TINY_DECODER = replace(SHAPES["135M"], layers=2, hidden=64, heads=4, shared_heads=2, head_size=16, inner=128, vocabulary=256)


@pytest.fixture(scope="module")
def decoded() -> tuple[list[Row], list[Bar]]:
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr(measuring, "PROMPT", 5)
        shorter.setattr(measuring, "ANSWER", 16)
        return measure([TINY_DECODER], 1, 1)


@pytest.fixture(scope="module")
def found() -> Report:
    return cpu24.run(TINY, 1, "line")


def test_every_contestant_multiplies() -> None:
    subject = Subject.of(64, 48, 1 << 14)
    assert subject.copies > 1
    x = subject.x(3)
    expected = x @ subject.weights[0].T
    for name, one in contestants(subject, 1).items():
        close = 0.5 if name.endswith("MatMulNBits 4") else 0.1 if "8" in name else 0.05
        np.testing.assert_allclose(one.answer(x), expected, rtol=0.05, atol=close, err_msg=name)
        one.prepared(x)()


@pytest.mark.integration
def test_every_product_has_its_rows_and_bars(found: Report) -> None:
    for name in (ORT, TORCH, DENSE, HALF, INTEGER, *BITS, *OURS):
        for rows in ("1 row", "16 rows"):
            assert found.value(f"64 to 48, {rows}: {name}", cpu24.TIME)
        assert found.value(f"64 to 48, 1 row: {name}", cpu24.SHARE)
    assert found.value(f"64 to 48, 16 rows: {next(iter(OURS))}", cpu24.SPEED)
    assert len(found.bars) == 5


@pytest.mark.integration
def test_every_decoder_has_its_rows_and_bars(decoded: tuple[list[Row], list[Bar]]) -> None:
    rows, bars = decoded
    values = {(row.name, row.metric): row.value for row in rows}
    ours, dense = (measuring.PACKED, measuring.PACKED_INT8), (measuring.INT4, measuring.INT8, measuring.INTEGER)
    for name in (measuring.ORT, measuring.TORCH, *dense, *ours):
        assert values[f"{TINY_DECODER.name}: {name}", measuring.PREFILL]
        assert values[f"{TINY_DECODER.name}: {name}", measuring.DECODE]
    assert len(bars) == 6
    for name in ours:
        assert values[f"{TINY_DECODER.name}: {name}", PREDICTED] > 0


def test_every_decoder_computes_the_same(tmp_path: Path) -> None:
    found = measuring.runners(TINY_DECODER, tmp_path, 1)
    answers = {}
    for name, runner in found.items():
        runner.prefill(5)
        runner.step()
        if runner.logits is not None:
            answers[name] = np.array(runner.logits)
    for name, answer in answers.items():
        close = 0.7 if name in (measuring.INT4, measuring.LLAMA_INT4) else 0.1  # four bits
        np.testing.assert_allclose(answer, answers[measuring.ORT], atol=close, err_msg=name)


def test_no_layer_has_the_weights_of_another(tmp_path: Path) -> None:
    measuring.runners(TINY_DECODER, tmp_path, 1, measuring.SPARE)
    graphs = sorted(tmp_path.glob("*.onnx"))
    assert graphs
    for path in graphs:
        weights = {tensor.name: tensor.raw_data for tensor in onnx.load(path).graph.initializer}
        for name, weight in weights.items():
            if name.startswith("l0.") and not name.endswith(".positions"):  # of six pairs of places, by chance the same
                assert weight != weights[name.replace("l0.", "l1.", 1)], f"{path.name}: {name}"


@pytest.mark.parametrize(("name", "content"), cpu24_table.TABLES.items())
def test_page_is_what_the_results_say(name: str, content: Callable[[Report], str]) -> None:
    page = cpu24_table.PAGE.read_text(encoding="utf-8")
    assert with_table(page, name, content(Report.read(RESULTS / f"{name}.json"))) == page, f"run python benchmarks/{name}.py"


@pytest.mark.integration
def test_tables_have_a_line_for_everyone(found: Report, decoded: tuple[list[Row], list[Bar]]) -> None:
    text = cpu24_table.table(found)
    assert "| 64 to 48, 1 row |" in text
    assert "**no**" in text or "| yes |" in text
    rows, bars = decoded
    decoders = replace(found, rows=rows, bars=bars)
    assert f"| 135 M, SmolLM2: {measuring.INT4} |" in cpu24_table.decoders(decoders)
    assert cpu24_table.verdict(decoders).startswith(f"With {found.settings['instruction_set'].upper()} kernels")


@pytest.mark.integration
def test_what_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants_module, "find_spec", lambda name: None)
    report = cpu24.run(cpu24.Work((), (), 1, 1 << 14), 1, "line")
    assert [row.value for row in report.rows if row.name == f"{OPENVINO_BF16}: not installed"] == [None]


def test_a_ratio_is_taken_round_by_round() -> None:
    times = {ORT: [2.0, 6.0], "x": [1.0, 2.0]}
    assert cpu24._gains(times, ORT, "x") == [2.0, 3.0]
