"""The benchmark of training steps: every row on tiny layers and a tiny LLaVA, what it counts, and the page it fills."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sparse_lora
import torch
from lora_steps import layer as layers
from lora_steps.contestants import AUTOGRAD, LORA, LORS, OURS, Contestant, by_autograd, contestants
from lora_steps.layer import ONLY, Layer
from lora_steps.measuring import cosine, observe
from lora_steps.vlm import VLM, Size, checkpointing
from lora_steps.words import CHECKPOINTED, COSINES, KEPT, PEAK, STEP
from report import RESULTS, Report, Row
from torch import nn

from vlmc.toolchain.repair.kernels import tiled

TINY = sparse_lora.Work(12, 4, 1, Size(2, 10, 3, 28, 64, 96, 2, 64, 80, 2))
SOME = ("1024", "vlm")
METHODS = (LORA, AUTOGRAD, LORS, OURS)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Make the layer tiny, and yet several tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "SHAPES", {"1024": (40, 24)})
        patch.setattr(tiled, "TILE", 128)
        patch.setattr(tiled, "NARROWEST", 8)
        yield


@pytest.fixture(scope="module")
def found() -> Report:
    return sparse_lora.run(SOME, TINY, "line")


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return VLM(TINY.size)


@pytest.mark.slow
def test_every_method_has_every_row(found: Report) -> None:
    names = {f"{subject}: {method}" for subject in SOME for method in METHODS}
    for metric in (STEP, CHECKPOINTED, PEAK, KEPT, *COSINES):
        assert {row.name for row in found.rows if row.metric == metric} == names
    assert len(found.rows) == len(names) * 7
    assert all(row.baseline is None for row in found.rows if row.name.endswith(LORA))
    assert len(found.bars) == 8
    json.dumps([bar.value for bar in found.bars], allow_nan=False)


@pytest.mark.slow
def test_ours_has_the_true_gradient_and_lors_has_not(found: Report) -> None:
    for row in found.rows:
        if row.metric in COSINES and row.value is not None:
            assert (row.value > 0.999999) == (row.name.split(": ")[1] in (AUTOGRAD, OURS))
            assert row.value < 0.95 or row.value > 0.999999


@pytest.mark.integration
def test_autograd_alone_keeps_the_masked_weight(found: Report, vlm: VLM) -> None:
    rows, columns = layers.SHAPES["1024"]
    assert found.value(f"1024: {AUTOGRAD}", KEPT) == pytest.approx(rows * columns * 4 / 2**20, rel=1e-2)
    assert found.value(f"1024: {LORS}", KEPT) == found.value(f"1024: {OURS}", KEPT) == 0
    kept = {method: found.value(f"vlm: {method}", KEPT) or 0.0 for method in METHODS}
    needless = 3 * TINY.size.vision_hidden**2  # the first q, k and v take what asks for no gradient
    weights = sum(mask_OI.numel() for mask_OI in vlm.masks.values()) - needless
    assert kept[OURS] == kept[LORS] < kept[LORA]
    assert kept[AUTOGRAD] == pytest.approx(kept[OURS] + 4 * weights / 2**20, abs=2e-3)


def test_a_layers_truth_is_autograds_in_float64() -> None:
    layer = Layer("1024", 12)
    pairs = layer.draw(4)
    exact = layer.twin().double()
    one = by_autograd(layer, exact, {name: (a_RI.double(), b_OR.double()) for name, (a_RI, b_OR) in pairs.items()})
    one.model(layer.x_LI.double()).backward(layer.grad_LO.double())
    for mine, true in zip(one.gradients()[ONLY], layer.truth(pairs)[ONLY], strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-10)


def test_peak_memory_is_what_is_held_and_what_is_alive_at_once() -> None:
    layer = Layer("1024", 12)
    (rows, columns), tokens = layers.SHAPES["1024"], 12
    held = rows * columns + tokens * columns + tokens * rows
    seen = observe(Contestant(layer.twin(), {}), layer)
    assert seen.peak == 4 * (held + tokens * rows + tokens * columns), "the output, and the gradient of the input"
    assert seen.kept == 0


def test_methods_share_weights_and_begin_alike(vlm: VLM) -> None:
    pairs = vlm.draw(4)
    models = {method: one.model for method, one in contestants(vlm, pairs).items()}
    weights = {id(one) for one in vlm.model.parameters()}
    for model in models.values():
        frozen = [one for one in model.parameters() if not one.requires_grad]
        assert {id(one) for one in frozen} == weights
        assert sum(one.requires_grad for one in model.parameters()) == 2 * len(pairs) == 2 * (2 * 7 + 2 * 6 + 2)


@pytest.mark.integration
def test_checkpointing_runs_each_block_twice_and_changes_no_gradient(vlm: VLM) -> None:
    one, runs = contestants(vlm, vlm.draw(4))[OURS], []
    for module in one.model.modules():
        if type(module).__name__.endswith("MLP"):
            module.register_forward_pre_hook(lambda *given: runs.append(given[0]))
    vlm.step(one.model)
    plain, times = one.gradients(), len(runs)
    assert times == TINY.size.blocks + TINY.size.vision_blocks
    one.forget()
    vlm.step(one.model, checkpointed=True)
    assert len(runs) == 3 * times
    assert cosine(one.gradients(), plain, (0, 1)) == pytest.approx(1.0, abs=1e-6)
    with checkpointing(one.model):
        pass
    assert not any("forward" in vars(module) for module in one.model.modules() if isinstance(module, nn.Module))


def rows(where: str, peak: float, step: float, checkpointed: float, least: float) -> list[Row]:
    ratios = [(PEAK, peak), (STEP, step), (CHECKPOINTED, checkpointed)]
    return [
        *(Row(f"{where}: {OURS}", f"{where}: {LORA}", metric, 1.0, "", ratio, None) for metric, ratio in ratios),
        *(Row(f"{where}: {OURS}", None, metric, least, "", None, None) for metric in COSINES),
        Row(f"{where}: {AUTOGRAD}", f"{where}: {LORA}", PEAK, 1.0, "", 9.0, None),
    ]


def test_bars_are_what_the_issue_asks_of_layers_and_vlm() -> None:
    good, slow = rows("1024", 1.05, 1.5, 1.35, 0.99995), rows("4096", 1.0, 1.51, 1.2, 1.0)
    vlm = rows("vlm", 1.06, 1.0, 1.0, 0.9998)
    assert [bar.holds for bar in sparse_lora.bars_of([*good, *slow, *vlm])] == [
        *(True, False, True, True),
        *(False, True, True, False),
    ]
    assert [bar.value for bar in sparse_lora.bars_of([*good, *slow])] == [1.05, 1.51, 1.35, 0.99995]


@pytest.mark.integration
def test_the_table_has_a_line_a_method(found: Report) -> None:
    text = sparse_lora.table(found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for subject in SOME:
        first = next(place for place, line in enumerate(lines) if line.startswith(f"| {subject} | {LORA} | "))
        assert [line.split(" | ")[1] for line in lines[first : first + 4]] == list(METHODS)
    assert f"vlm: {TINY.size}" in text
    assert f"| step, ours to plain LoRA's, vlm | at most 1.5 times | {found.bars[5].value:.6g} | " in text
    assert text.endswith(": `line`.")


def test_the_page_shows_the_results() -> None:
    page = sparse_lora.PAGE.read_text(encoding="utf-8")
    assert sparse_lora.filled(page, Report.read(RESULTS / "sparse_lora.json")) == page, (
        "run benchmarks/sparse_lora.py --table"
    )
    stale = page.replace("| RESSA, ours | ", "| RESSA, ours | 9", 1)
    assert sparse_lora.filled(stale, Report.read(RESULTS / "sparse_lora.json")) == page


@pytest.mark.slow
def test_a_quick_run_has_every_subject_and_is_written_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "SHAPES", dict.fromkeys(("1024", "2048", "4096", "11008"), (40, 24)))
    page = sparse_lora.PAGE.read_bytes()
    sparse_lora.main(["--quick", "--out", str(tmp_path / "found.json")])
    found = Report.read(tmp_path / "found.json")
    assert list(dict.fromkeys(row.name.partition(": ")[0] for row in found.rows)) == list(sparse_lora.SUBJECTS)
    assert len(found.rows) == 5 * len(METHODS) * 7
    assert sparse_lora.PAGE.read_bytes() == page
