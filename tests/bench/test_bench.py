"""bench: phases are timed apart, ratios are taken round by round, twins compute what they should."""

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime.errors import InputError
from vlmc.runtime.sessions import Array, Session
from vlmc.toolchain.bench import bench, predicting
from vlmc.toolchain.bench.bench import Bench, bits_of, forms_of, summary
from vlmc.toolchain.bench.latency import DENSE, MERGED, UNMERGED, have_same_operators, no_lora_latency, said
from vlmc.toolchain.bench.memory import mapped
from vlmc.toolchain.bench.predicting import TOO_SMALL
from vlmc.toolchain.bench.showing import PICTURE, RECORD, check, show, write
from vlmc.toolchain.bench.timing import PHASES, Timed
from vlmc.toolchain.cli.main import run
from vlmc.toolchain.deploy.deployed import Deployed
from vlmc.toolchain.deploy.twins import RANK, leave_adapters_apart, rank_of
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import BenchSettings


class Doubling(Session):
    @property
    def inputs(self) -> dict[str, tuple[np.dtype[np.float32], tuple[int | str, ...]]]:
        return {"x": (np.dtype(np.float32), (1,))}

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:  # type: ignore[override]
        return {"y": 2 * feeds["x"]}

    def close(self) -> None:
        pass


def rows(merged: float, unmerged: float) -> dict[str, object]:
    speeds = {DENSE: 1.0, MERGED: merged, UNMERGED: unmerged}
    return {name: {"of_dense": {"end to end": {"median": speed, "spread": 0.1}}} for name, speed in speeds.items()}


def test_every_run_is_noted() -> None:
    timed = Timed(Doubling())
    assert timed.run({"x": np.ones(1)})["y"] == 2
    timed.run({"x": np.ones(1)})
    assert len(timed.seconds) == 2
    assert min(timed.seconds) > 0
    assert timed.inputs == Doubling().inputs


def test_twin_with_its_adapter_apart_answers_the_same() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4, bias=False))
    x = torch.randn(3, 8)
    expected = model(x)
    leave_adapters_apart(model, ["0", "2"], 2)
    assert torch.equal(model(x), expected)
    assert {name for name, _ in model.named_parameters()} >= {"0.lora_a.weight", "0.lora_b.weight", "2.weight"}
    nn.init.ones_(model[2].lora_b.weight)
    assert not torch.equal(model(x), expected)


def test_no_latency_means_as_quick_as_dense_and_slower_apart() -> None:
    assert no_lora_latency(rows(0.99, 0.9), same=True)["holds"]
    assert not no_lora_latency(rows(0.97, 0.9), same=True)["holds"]
    assert not no_lora_latency(rows(1.0, 1.1), same=True)["holds"]
    assert said(no_lora_latency(rows(0.97, 0.9), same=None)) == (
        "no LoRA latency: merged 0.97 of the dense twin's speed (spread over the rounds 0.10), adapter apart 0.90: "
        "does not hold in this run"
    )
    assert said(no_lora_latency(rows(1, 0.9), same=True)).endswith(
        ": holds; the merged graphs are the dense twin's, operator for operator"
    )
    assert "have other operators" in said(no_lora_latency(rows(1, 0.9), same=False))
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "spread": 2.0}


def write_graph(folder: Path, width: int, value: float, operator: str = "MatMul") -> Path:
    folder.mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", None]) for name in "xy")
    weight = numpy_helper.from_array(np.full((8, width), value, np.float32), "w")
    graph = helper.make_graph([helper.make_node(operator, ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph), folder / "decoder.onnx")
    return folder


def test_graphs_are_compared_by_operators_and_sizes_whatever_their_weights_are(tmp_path: Path) -> None:
    dense = write_graph(tmp_path / "dense", 4, 1.0)
    assert have_same_operators(dense, write_graph(tmp_path / "sparse", 4, 0.0))
    assert not have_same_operators(dense, write_graph(tmp_path / "wider", 5, 1.0))
    assert not have_same_operators(dense, write_graph(tmp_path / "other", 4, 1.0, "Gemm"))
    (tmp_path / "sparse/more.onnx").touch()
    assert not have_same_operators(dense, tmp_path / "sparse")


def test_where_the_results_go_is_checked_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "full/bench.png").mkdir(parents=True)
    for place, told in (
        ("file", "file is not a folder"),
        ("file/new", "file is not a folder"),
        ("broken", "broken is not a folder"),
        ("full", r"bench\.png is a folder"),
    ):
        with pytest.raises(InputError, match=f"{told}: name another .*with --out"):
            check(tmp_path / place)
        assert run(["bench", str(tmp_path / "artifact"), "--out", str(tmp_path / place)]) == 2
        assert "name another" in capsys.readouterr().err
    check(tmp_path / "new/deep")
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_types_to_pack_are_checked() -> None:
    assert forms_of("w8a8,int8, bf16") == ["bf16", "int8", "w8a8"]
    assert forms_of("") == []
    with pytest.raises(InputError, match="--packed int4: give fp32, bf16, fp16, int8, w8a8, or several"):
        forms_of("int4")


def test_bits_are_read() -> None:
    assert bits_of("4, 8") == [8, 4]
    assert bits_of("") == []
    with pytest.raises(InputError, match="--nbits 2: give 8, 4, or both separated by a comma"):
        bits_of("2")


def test_what_is_mapped_from_graphs_is_read_from_smaps() -> None:
    lines = (
        "7f00-7f10 r--s 00000000 08:01 42                /graphs/decoder.onnx.data\n"
        "Rss:  12 kB\nPrivate_Dirty:  8 kB\nAnonymous:  4 kB\n"
        "7f10-7f20 r--p 00000000 08:01 42                /graphs-of-others/decoder.onnx.data\nRss:  100 kB\n"
        "7f20-7f30 rw-p 00000000 00:00 0 \nRss:  100 kB\nAnonymous:  100 kB\n"
        "7f30-7f40 r--s 00000000 08:01 43                /graphs/vision.onnx.data\nRss:  8 kB\nAnonymous:  0 kB\n"
    )
    assert mapped(lines.splitlines(), Path("/graphs")) == (20480, 4096)


class Seen:
    """The layouts of deployed models' caches, and how many different models torch still holds when the rounds begin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layouts: set[str] = set()
        self.held_in_torch = -1
        self._models = weakref.WeakSet[nn.Module]()
        self._deploy, self._in_turns = bench.deploy, bench.in_turns
        monkeypatch.setattr(bench, "deploy", self.deploy)
        monkeypatch.setattr(bench, "in_turns", self.in_turns)

    def deploy(self, saved: SavedModel, model: nn.Module, *given: Any, **more: Any) -> Deployed:
        deployed = self._deploy(saved, model, *given, **more)
        self.layouts.add(deployed.deployment.cache)
        self._models.add(deployed.specs[-1].module)
        return deployed

    def in_turns(self, *given: Any) -> Iterator[dict[str, Any]]:
        gc.collect()
        self.held_in_torch = len(self._models)
        return self._in_turns(*given)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "cache"), [("torch", predicting.CACHE), ("onnx", predicting.CACHE), ("onnx", 0)])
def test_everyone_takes_part(
    engine: str, cache: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "CACHE", cache)
    seen = Seen(monkeypatch)
    dense = pico.save("llava", tmp_path / "dense")
    artifact = pruned(dense, tmp_path / "artifact")
    options = BenchSettings(engine=engine, rounds=2, new_tokens=3, packed="bf16,w8a8", device="cpu")  # type: ignore[arg-type]
    found = Bench(artifact, SavedModel.find(str(dense)), options, Progress(quiet=True)).run()
    packed = ["sparse, packed bf16", "sparse, packed w8a8"] if engine == "onnx" and bench.instruction_sets() else []
    narrow = ["dense, MatMulNBits 8", "dense, MatMulNBits 4"] if engine == "onnx" else []
    assert list(found["rows"]) == [DENSE, *narrow, MERGED, *packed, UNMERGED]
    if cache:
        assert found["predicted"] == {}
        assert found["why_not_predicted"] == (TOO_SMALL if packed else None)
    elif packed:
        assert list(found["predicted"]) == packed[:1]
        assert all(value > 0 for value in found["predicted"][packed[0]].values())
    assert rank_of(artifact.manifest) == RANK
    assert seen.held_in_torch in ([3] if engine == "torch" else [0, 1])  # onnxscript's rules keep the last graph they saw
    assert found["no_lora_latency"]["same_operators"] is (True if engine == "onnx" else None)
    assert seen.layouts == {"in-place" if engine == "onnx" else "concatenated"}  # as vlmc export writes it
    for row in found["rows"].values():
        assert all(row["seconds"][phase]["median"] > 0 for phase in PHASES)
        assert row["bytes"] > 0
        assert (row["memory"] is not None) == (engine == "onnx")
        if row["memory"]:
            assert row["memory"]["peak"] > 1 << 20
            assert row["memory"]["copied"] == 0
    for name in packed:
        assert 0 < found["rows"][name]["memory"]["mapped"] <= found["rows"][name]["bytes"] + (1 << 16)
    assert found["rows"][UNMERGED]["bytes"] > found["rows"][MERGED]["bytes"]
    write(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / RECORD).read_text()) == found
    assert (tmp_path / "out" / PICTURE).stat().st_size > 1000
    show(found, tmp_path / "out")
    assert "no LoRA latency" in capsys.readouterr().out
