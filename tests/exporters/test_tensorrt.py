"""Engines are built where TensorRT-RTX is installed; what the logs of other versions say is read from their own lines."""

import json
import re
import signal
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.artifacts import DEPLOYABLE, dense, pruned
from tests.exporters.material import TWO_FOUR, Small, small
from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.exporters.graphs import Axis, GraphSpec
from vlmc.exporters.tensorrt import building, watching
from vlmc.exporters.tensorrt.binding import Binding, bind
from vlmc.exporters.tensorrt.building import Target, build, profile_shapes
from vlmc.exporters.tensorrt.exporter import AHEAD_OF_TIME
from vlmc.exporters.tensorrt.log import SparsityLog, parse
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.machine.progress import Progress, Task
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

LOG_8 = """
[V] (Sparsity) Layers eligible for sparse math: Conv_0, MatMul_3, MatMul_7
[V] (Sparsity) TRT inference plan picked sparse implementation for layers: MatMul_3
"""
LOG_10 = """
[V] (Sparsity) Found 2 layer(s) eligible to use sparse tactics: /q/MatMul, /k/MatMul
[V] (Sparsity) Chose 2 layer(s) using sparse tactics: /q/MatMul, /k/MatMul
[V] (Sparsity) Found 3 layer(s) eligible to use sparse tactics: /q/MatMul, /k/MatMul, /v/MatMul
[V] (Sparsity) Chose 1 layer(s) using sparse tactics: /v/MatMul
"""
LOG_NONE = (
    "[V] (Sparsity) Found 0 layer(s) eligible to use sparse tactics\n[V] (Sparsity) Chose 0 layer(s) using sparse tactics"
)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (LOG_8, SparsityLog(("Conv_0", "MatMul_3", "MatMul_7"), ("MatMul_3",))),
        (LOG_10, SparsityLog(("/q/MatMul", "/k/MatMul", "/v/MatMul"), ("/v/MatMul",))),
        (LOG_NONE, SparsityLog((), ())),
        ("Engine generation completed in 1.0 seconds.", SparsityLog(None, None)),
        (LOG_10 + "(Sparsity) Found 1 layer(s) eligible to use sparse tactics: x", SparsityLog(("x",), None)),
    ],
)
def test_the_last_pair_of_the_log_counts(log: str, expected: SparsityLog) -> None:
    assert parse(log.splitlines()) == expected


def test_profiles_take_every_axis(tmp_path: Path) -> None:
    axes = {"x": {0: Axis("batch", 1, 4, 8)}}
    assert profile_shapes(small(axes=axes)) == {"x": ((1, 16), (4, 16), (8, 16))}


@pytest.mark.parametrize("family", DEPLOYABLE)
def test_profiles_agree_in_each_of_their_shapes(family: str, tmp_path: Path) -> None:
    saved = SavedModel.find(str(dense(family, tmp_path / "dense")))
    vision, *_, decoder = deploy(saved, saved.load(), {}).specs
    shapes = profile_shapes(decoder)
    first = next(name for name in shapes if name.startswith("past_key_values"))
    for which in range(3):
        sequence, past = shapes["inputs_embeds"][which][1], shapes[first][which][2]
        assert shapes["attention_mask"][which][1] == sequence + past
        assert shapes["position_ids"][which][-1] == sequence
    for axis in {axes[0].name for axes in vision.axes.values()}:
        alike = [shape for name, shape in profile_shapes(vision).items() if vision.axes[name][0].name == axis]
        assert all(len({shape[which][0] for shape in alike}) == 1 for which in range(3))


def test_without_any_tensorrt_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'vlmc\[tensorrt-rtx\]'"):
        exporters.find("tensorrt")


def test_tensorrt_comes_first_and_a_stub_of_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stub = types.SimpleNamespace(Builder=object, __version__="10.3"), types.SimpleNamespace()
    rtx = types.SimpleNamespace(Builder=object, __version__="1.7.1")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    monkeypatch.setitem(sys.modules, "tensorrt", whole)
    assert (bind().package, bind().ahead_of_time, bind().targets([])[0][:2]) in {
        ("tensorrt", False, "lo"),  # no GPU here
        ("tensorrt", False, "sm"),
    }
    monkeypatch.setitem(sys.modules, "tensorrt", stub)
    assert (bind().package, bind().ahead_of_time) == ("tensorrt_rtx", True)


@pytest.fixture
def rtx() -> Binding:
    return Binding("tensorrt_rtx", pytest.importorskip("tensorrt_rtx"))


def test_gpus_are_checked(rtx: Binding) -> None:
    assert rtx.targets(["sm86", " SM89 ", "sm86"]) == ["sm86", "sm89"]
    with pytest.raises(InputError, match="'a100' is not a GPU architecture: give some of sm75, sm80"):
        rtx.targets(["a100"])
    with pytest.raises(InputError, match="cannot build for sm90: give some of sm75"):
        rtx.targets(["sm90"])


def test_tensorrt_rtx_builds_for_two_gpus_where_none_is_named(rtx: Binding) -> None:
    assert rtx.targets([]) == ["sm86", "sm89"]


def test_tensorrt_builds_for_the_gpu_at_hand_and_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = Binding("tensorrt", types.SimpleNamespace(__version__="10.3"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    assert binding.targets([]) == binding.targets(["sm90", " SM90"]) == ["sm90"]
    with pytest.raises(InputError, match=r"^--gpu sm86: TensorRT 10.3 builds only for the GPU in this machine \(sm90\)"):
        binding.targets(["sm90", "sm86"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"--gpu sm86: .* \(none that torch can use\)"):
        binding.targets(["sm86"])


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_small_module_is_built_for_each_gpu(
    rtx: Binding, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    module = Small().eval()
    module.sequence.weight.data.fill_(1.0)
    spec = small(module=module, sparse={"rows": TWO_FOUR})
    options = Options(precision, ("sm86", "sm89"))  # type: ignore[arg-type]
    report = exporters.find("tensorrt").export([spec], tmp_path, options, Task())
    engines = report["engines"]
    assert [engine["file"] for engine in engines] == ["small.sm86.engine", "small.sm89.engine"]
    assert all((tmp_path / engine["file"]).stat().st_size == engine["bytes"] > 1000 for engine in engines)
    assert (tmp_path / "small.sm86.engine").read_bytes() != (tmp_path / "small.sm89.engine").read_bytes()
    assert (engines[0]["eligible"], engines[0]["dense"]) == (["rows"], ["sequence"])
    assert (engines[0]["log_chosen"], engines[0]["note"]) == (None, AHEAD_OF_TIME)
    assert report["profiles"] == {"small": {"x": ["batch 1..4..8"]}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.sm86.engine", "small.sm89.engine"]


def test_file_that_cannot_be_parsed_is_told(rtx: Binding, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckFailed, match=r"^TensorRT cannot read small: .+"):
        build(rtx, small(), tmp_path / "a.onnx", Target("sm86"), told_nothing)


@pytest.mark.integration
def test_ctrl_c_stops_the_builder_between_two_steps(rtx: Binding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmc.exporters.onnx.tracing import trace

    trace(small(), tmp_path / "small.onnx", "fp16")
    before = signal.getsignal(signal.SIGINT)

    class Pressing(rtx.trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Stands for vlmc's: presses Ctrl-C at the second step, then asks it."""

        def __init__(self, ours: object) -> None:
            rtx.trt.IProgressMonitor.__init__(self)
            self.ours, self.steps = ours, 0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None: ...

        def phase_finish(self, name: str) -> None: ...

        def step_complete(self, name: str, step: int) -> bool:
            self.steps += 1
            if self.steps == 2:
                signal.raise_signal(signal.SIGINT)
            return bool(self.ours.step_complete(name, step))  # type: ignore[attr-defined]

    monitors, ours = [], watching._monitor
    monkeypatch.setattr(watching, "_monitor", lambda *given: monitors.append(Pressing(ours(*given))) or monitors[-1])
    with pytest.raises(KeyboardInterrupt):
        build(rtx, small(), tmp_path / "small.onnx", Target("sm86"), told_nothing)
    assert monitors[0].steps == 2  # and no further one
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.integration
def test_each_step_is_told_and_the_workspace_is_bounded(
    rtx: Binding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmc.exporters.onnx.tracing import trace

    trace(small(), tmp_path / "small.onnx", "fp16")
    told, limits, configure = list[str](), list[int](), building._configure

    def seen(*given: Any) -> Any:
        config = configure(*given)
        limits.append(config.get_memory_pool_limit(rtx.trt.MemoryPoolType.WORKSPACE))
        return config

    monkeypatch.setattr(building, "_configure", seen)
    with ThreadPoolExecutor(1) as pool:  # where Ctrl-C cannot stop it, it is told all the same
        pool.submit(build, rtx, small(), tmp_path / "small.onnx", Target("sm86", 1 << 28), told.append).result()
    build(rtx, small(), tmp_path / "small.onnx", Target("sm86"), told_nothing)
    assert limits[0] == 1 << 28 < limits[1]
    steps = [re.fullmatch(r"small, sm86: ([a-z -]+) (\d+)/(\d+)", line) for line in told]
    assert all(step is not None and int(step[2]) <= int(step[3]) for step in steps)
    assert "building engine" in {step[1] for step in steps if step is not None}


def told_nothing(_: str) -> None:
    """Stands for who is told of a build's steps."""


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.integration
def test_profile_that_contradicts_itself_is_told(rtx: Binding, tmp_path: Path) -> None:
    from vlmc.exporters.onnx.tracing import trace

    same = {0: Axis("batch", 1, 2, 8)}
    spec = GraphSpec("sum", Sum(), {"x": torch.ones(2, 4), "y": torch.ones(2, 4)}, ("z",), {"x": same, "y": same})
    trace(spec, tmp_path / "sum.onnx", "fp16")
    build(rtx, spec, tmp_path / "sum.onnx", Target("sm86"), told_nothing)
    other = GraphSpec("sum", Sum(), spec.inputs, ("z",), {"x": same, "y": {0: Axis("batch", 4, 5, 7)}})
    with pytest.raises(CheckFailed, match=r"^TensorRT cannot build sum for sm86: .+"):
        build(rtx, other, tmp_path / "sum.onnx", Target("sm86"), told_nothing)


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["fp16", pytest.param("fp32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", DEPLOYABLE)
def test_whole_artifact_is_built(rtx: Binding, family: str, precision: Any, tmp_path: Path) -> None:
    made = pruned(dense(family, tmp_path / "dense"), tmp_path / "artifact")
    report = Export(ExportSettings(gpu="sm86", precision=precision), "tensorrt", Progress(quiet=True)).run(made)
    opened = Artifact.open(made.root)
    opened.verify_files("tensorrt/")
    assert json.loads((made.root / "tensorrt/build.json").read_text()) == report
    assert {path for path in opened.manifest.files if path.endswith(".engine")} == {
        f"tensorrt/{graph}.sm86.engine" for graph in report["profiles"]
    }
    eligible = sum(len(engine["eligible"]) for engine in report["engines"])
    assert eligible + len(report["layers_in_no_graph"]) == len(made.manifest.layers)
    assert report["precision"] == precision
