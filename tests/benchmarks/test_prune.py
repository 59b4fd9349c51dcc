"""The benchmark of pruning beside its peers: its pure parts, the textbook's code, a tiny run of what needs no install."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import prune
import pytest
import torch
from plot import is_current
from prune_peers import environment, judging, ours, pages, textbook, words
from prune_peers.arena import AS_STORED, CONTESTANTS, Arena, Work
from prune_peers.job import Job, Taken, measured
from prune_peers.material import Size
from report import RESULTS, Report, Row

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import PRUNERS

RESULT = RESULTS / "prune.json"


def rows(**changed: float) -> list[Row]:
    """What makes every bar hold, but for what is changed: by metric, model and contestant joined with _."""
    values = {
        (words.DEMO, words.WANDA, words.AGREEMENT): 99.95,
        (words.WIDE, words.WANDA, words.AGREEMENT): 100.0,
        (words.DEMO, words.SPARSEGPT, words.RATIO): 1.01,
        (words.WIDE, words.SPARSEGPT, words.RATIO): 0.9,
        (words.DEMO, words.ADMM_REFIT, words.BETTER): 90.0,
        (words.WIDE, words.ADMM_REFIT, words.BETTER): 100.0,
        (words.DEMO, words.ADMM_REFIT, words.ACCURACY): 93.0,
        (words.DEMO, words.THEIR_SPARSEGPT, words.ACCURACY): 92.0,
    }
    for name, seconds, memory in (
        (words.THEIR_WANDA, 2.0, 200.0),
        (words.THEIR_WANDA_STORED, 4.0, 100.0),
        (words.WANDA, changed.get("seconds", 2.0), changed.get("memory", 50.0)),
        (words.THEIR_SPARSEGPT, 5.0, 100.0),
        (words.THEIR_SPARSEGPT_STORED, 4.0, 100.0),
        (words.SPARSEGPT, 1.0, 20.0),
        (words.TEXTBOOK_WANDA, changed.get("textbook", 1.5), 400.0),
    ):
        values |= {(words.WIDE, name, words.TIME): seconds, (words.WIDE, name, words.ABOVE): memory}
    return [
        Row(prune.titled(model, name), None, metric, value, "", None, None)
        for (model, name, metric), value in values.items()
    ]


def test_bars_are_what_the_issue_asks() -> None:
    bars = prune.bars_of(rows(), "")
    assert len(bars) == 11
    assert all(bar.holds for bar in bars)


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"seconds": 2.1}, {"wide: time to prune, vlmc Wanda to llm-compressor Wanda": 1.05}),
        ({"textbook": 1.0}, {"wide: time to prune, vlmc Wanda to textbook Wanda": 2.0}),
        ({"memory": 51.0}, {"wide: peak memory, vlmc Wanda to llm-compressor Wanda, bfloat16": 0.51}),
    ],
)
def test_time_stands_beside_the_quicker_type_and_memory_beside_both(
    changed: dict[str, float], missed: dict[str, float]
) -> None:
    assert {bar.name: bar.value for bar in prune.bars_of(rows(**changed), "") if not bar.holds} == missed


def test_without_llm_compressor_no_bar_holds_and_each_says_why() -> None:
    bars = prune.bars_of(rows(), "not installed: run without --quick once")
    assert not any(bar.holds for bar in bars)
    assert all(bar.name.endswith("not installed: run without --quick once") for bar in bars)
    json.dumps([bar.value for bar in bars], allow_nan=False)


def test_layers_are_compared_one_by_one() -> None:
    better, worst = prune.against("demo", words.ADMM, {"a": 0.1, "b": 0.3}, {"a": 0.2, "b": 0.2})
    assert (better.value, worst.value) == (50.0, 1.5)
    assert better.baseline == "demo: llm-compressor SparseGPT"


def test_costs_are_medians_and_ratios_within_a_round() -> None:
    mine = [Taken(seconds, 1.0, 0, 2**20) for seconds in (1.0, 4.0, 9.0)]
    theirs = [Taken(seconds, 1.0, 0, 2**21) for seconds in (2.0, 4.0, 6.0)]
    times = {one.name: [] for one in CONTESTANTS + AS_STORED} | {words.WANDA: mine, words.THEIR_WANDA: theirs}
    found = {(row.name, row.metric): row for row in prune.cost_rows(times, "gone")}
    row = found["wide: vlmc Wanda", words.TIME]
    assert (row.value, row.ratio, row.spread, row.baseline) == (4.0, 1.0, 8.0, "wide: llm-compressor Wanda")
    assert found["wide: vlmc Wanda", words.ABOVE].ratio == 0.5
    assert found["wide: llm-compressor SparseGPT (gone)", words.TIME].value is None


def test_an_environment_is_used_when_its_pins_are_the_ones_wanted(tmp_path: Path) -> None:
    with pytest.raises(environment.Missing, match="not installed: run without --quick once"):
        environment.interpreter(tmp_path, make=False)
    pins = [f"torch=={version('torch').partition('+')[0]}", *environment.PINS]
    (tmp_path / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    assert environment.interpreter(tmp_path, make=False) == tmp_path / "bin" / "python"
    (tmp_path / "pins.txt").write_text("\n".join([*pins[:-1], "transformers==5.0.0"]), encoding="utf-8")
    with pytest.raises(environment.Missing):
        environment.interpreter(tmp_path, make=False)


def test_a_failed_installation_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first >&2\necho no space left >&2\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(environment.Missing, match=r"^could not be installed: no space left$"):
        environment.interpreter(tmp_path / "env", make=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_peak_during_the_work() -> None:
    taken = measured(lambda: torch.ones(2**24).sum().item() and None)
    assert 60 < (taken.peak - taken.before) / 2**20 < 100
    assert taken.seconds > 0


def layer() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    mixing_II = torch.randn(256, 256, generator=draw) * torch.logspace(-1, 1, 256)
    return torch.randn(32, 256, generator=draw), torch.randn(600, 256, generator=draw) @ mixing_II / 16


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_the_textbooks_code_agrees_with_ours(method: str) -> None:
    weight_OI, x_LI = layer()
    statistics = Statistics(256, Need.HESSIAN, torch.device("cpu"))
    statistics.add(x_LI, "layer")
    expected_OI, mask_OI, _ = PRUNERS[method].prune(weight_OI, statistics, SparsityPattern.parse("2:4"))
    given = x_LI.square().sum(0) if method == "wanda" else x_LI.T @ x_LI
    found_OI = {"wanda": textbook.wanda, "sparsegpt": textbook.sparsegpt}[method](weight_OI, given)
    assert ((found_OI != 0) == mask_OI).float().mean() > 0.999
    torch.testing.assert_close(found_OI, expected_OI, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SavedModel, dict[str, Path]]:
    """A wide model of no width, pruned in this process by us and by the textbook."""
    folder = tmp_path_factory.mktemp("peers")
    arena = tiny(folder)
    model, found = arena.models[words.WIDE], {}
    for name, contestant in (("ours", ours.prune), ("textbook", textbook.prune)):
        found[name] = folder / name
        dtype = "fp32" if name == "ours" else "float32"
        contestant(Job("wanda", str(model.folder), str(arena.inputs(words.WIDE)), 2, str(found[name]), dtype=dtype))
    return model, found


def tiny(folder: Path) -> Arena:
    counts = {words.DEMO: 2, words.WIDE: 2}
    work = Work(counts, counts, 2, 1, Size(64, 64, 1, 1, 16), together=True)
    return Arena(work, folder, 1, folder / "none", install=False)


@pytest.mark.integration
def test_the_first_blocks_masks_are_the_textbooks(made: tuple[SavedModel, dict[str, Path]]) -> None:
    _, found = made
    assert judging.mask_agreement(found["ours"], found["textbook"]) > 95
    theirs, mine = judging.weights(found["textbook"]), judging.weights(found["ours"])
    vision = [tensor for name, tensor in judging.tensors_of_layers(found["ours"]).items() if "vision" in name]
    assert len(vision) == 6
    assert all(torch.equal(theirs[tensor], mine[tensor]) for tensor in vision)


@pytest.mark.integration
@torch.no_grad()
def test_layer_errors_are_relative_to_the_dense_output(made: tuple[SavedModel, dict[str, Path]]) -> None:
    model, found = made
    layers = judging.tensors_of_layers(found["ours"])
    inputs = prune.encoded(model, "validation", 2)
    errors = judging.layer_errors(model, layers, {**found, "dense": model.folder}, inputs)
    assert set(errors["dense"].values()) == {0.0}
    name, dense = next(iter(layers)), model.load()
    seen: list[torch.Tensor] = []
    dense.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    for sample in inputs:
        dense(**sample)
    x_LI, weight_OI = torch.cat(seen), dense.get_submodule(name).weight
    pruned_OI = judging.weights(found["ours"])[layers[name]].float()
    expected = ((weight_OI - pruned_OI) @ x_LI.T).norm() / (weight_OI @ x_LI.T).norm()
    assert errors["ours"][name] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_run_has_every_row_without_llm_compressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "Arena", lambda work, scratch, *_, install: tiny(scratch))
    found = prune.run(Work.of(quick=True, repeats=1), tmp_path / "none", "line", install=False)
    metrics: Sequence[str] = (words.ERROR, words.ACCURACY, words.TIME, words.BUSY, words.ABOVE, words.ABSOLUTE)
    for metric in metrics:
        names = [row.name for row in found.rows if row.metric == metric and row.value is not None]
        expected = {words.ERROR: 16, words.ACCURACY: 8}.get(metric, 8)
        assert sum(" vlmc " in name or " textbook " in name for name in names) == expected
        lacking = [row.name for row in found.rows if row.metric == metric and row.value is None]
        assert all(name.endswith("(not installed: run without --quick once)") for name in lacking)
        assert lacking
    assert len(found.bars) == 11
    agreed = [row for row in found.rows if row.metric == words.AGREEMENT_FLOAT]
    assert [row.name for row in agreed] == [
        *(f"demo: {name}" for name in (words.WANDA_BRAIN, words.SPARSEGPT_BRAIN)),
        *(f"wide: {name}" for name in (words.WANDA, words.SPARSEGPT)),
    ]
    assert all(row.value is not None and row.value > 80 for row in agreed)
    assert set(found.settings["precision"]) == {"demo", "wide"}


def report() -> Report:
    values = [*rows(), Row(f"wide: {words.WANDA}", None, words.ERROR, 0.25, "", None, None)]
    return Report("a processor", {}, "2026-01-01", "line", values, prune.bars_of(values, ""), {})


@pytest.mark.slow
def test_the_page_and_the_picture_are_made_from_the_results(tmp_path: Path) -> None:
    page = pages.filled("a\n<!-- table: prune -->\nold\n<!-- end -->\nb\n", report())
    assert page.startswith("a\n<!-- table: prune -->\n\n| |")
    assert page.endswith("<!-- end -->\nb\n")
    assert "| vlmc Wanda | 2.0 s | 50 MiB |  | 0.250 |  |\n" in page
    assert "Measured on a processor, 2026-01-01: `line`." in page
    source, picture = tmp_path / "prune.json", tmp_path / "prune.png"
    report().write(source)
    pages.draw(report(), source, picture)
    assert is_current(picture, source)
    replace(report(), date="2026-01-02").write(source)
    assert not is_current(picture, source)


def test_the_page_shows_the_results() -> None:
    page = prune.PAGE.read_text(encoding="utf-8")
    assert pages.filled(page, Report.read(RESULT)) == page, "run python benchmarks/prune.py --table"
    assert is_current(prune.PICTURE, RESULT), "run python benchmarks/prune.py --table"
