"""What the runtime does with TensorRT's engines, on a stand-in for GPU and TensorRT: see `standin`."""

import gc
import json
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import pico
from tests.artifacts import pruned, share_operators
from tests.runtime.gpu.standin import MOST, Cuda, tensorrt
from vlmc.runtime import Batcher, CheckFailed, Closed, EnvironmentLacks, InputError, Message, Options, load
from vlmc.runtime.artifact import extend
from vlmc.runtime.sessions import TensorrtSession
from vlmc.runtime.sessions.gpu import Gpu, GpuArray
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import Export

ASKED = [(seed, question) for seed in range(3) for question in pico.QUESTIONS[:2]]


@dataclass(frozen=True)
class Machine:
    """The stand-in, and an artifact with graphs and engines."""

    cuda: Cuda
    folder: Path


@pytest.fixture(scope="session", params=["llava", pytest.param("blip-2-t5", marks=pytest.mark.slow)])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with ONNX graphs, and engines that are the same graphs, in one file each."""
    folder = tmp_path_factory.mktemp("engines")
    share_operators()
    small = {"vision_config": 1, "text_config": 2} | ({"qformer_config": 1} if request.param == "blip-2-t5" else {})
    made = pruned(pico.save(request.param, folder / "dense", depths=small), folder / "artifact")
    Export(ExportSettings(cache="concatenated"), "onnx", Progress()).run(made)
    with extend(made, "tensorrt") as engines:
        shutil.copyfile(made.root / "onnx/deployment.json", engines / "deployment.json")
        (engines / "build.json").write_text(json.dumps({"package": "tensorrt"}))
        for path in (made.root / "onnx").glob("*.onnx"):
            (engines / f"{path.stem}.sm90.engine").write_bytes(onnx.load(path).SerializeToString())
    return made.root


@pytest.fixture
def machine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    cuda = Cuda()
    installed(monkeypatch, cuda)
    yield Machine(cuda, artifact)
    gc.collect()
    assert (cuda.held, cuda.streams) == ({}, 0), "memory, or streams, were not given back"


def installed(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    bindings = types.ModuleType("cuda.bindings")
    vars(bindings).update(runtime=cuda, driver=types.SimpleNamespace(cuuint64_t=int))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(cuda))


def engine(machine: Machine, name: str = "decoder_model_merged") -> Path:
    return machine.folder / f"tensorrt/{name}.engine"


@pytest.mark.integration
def test_answers_are_those_of_the_graphs(machine: Machine) -> None:
    with load(machine.folder, backend="tensorrt") as engines, load(machine.folder, threads=1) as graphs:
        for seed, question in ASKED:
            image = pico.picture(seed, 30 + 7 * seed, 50 - 3 * seed)
            expected = graphs.generate(image, question, max_new_tokens=8)
            assert engines.generate(image, question, max_new_tokens=8).tokens == expected.tokens


@pytest.mark.integration
def test_questions_that_join_and_leave_a_batch_get_the_same_answers(machine: Machine) -> None:
    with load(machine.folder, backend="tensorrt") as model:
        alone = [model.generate(pico.picture(seed), question, max_new_tokens=3 + seed).tokens for seed, question in ASKED]
        with Batcher(model, max_batch=3) as batcher:
            asked = [
                batcher.ask([Message("user", [pico.picture(seed), question])], Options(max_new_tokens=3 + seed))
                for seed, question in ASKED
            ]
            assert [pending.answer(60).tokens for pending in asked] == alone


@pytest.mark.integration
def test_a_cache_stays_on_the_gpu(machine: Machine) -> None:
    with load(machine.folder, backend="tensorrt", vision_bytes=0) as model:
        asked = model.prepare([Message("user", [pico.picture(0), pico.QUESTIONS[0]])], Options())
        logits_BV, state = model.engine.prefill(asked.batch)
        assert all(
            isinstance(array, GpuArray) for array in (*state.cache.values(), *state.question.values()) if array.ndim > 2
        )
        before = machine.cuda.uploaded
        for _ in range(3):
            logits_BV, state = model.engine.step(logits_BV.argmax(1), state)
        cache = sum(array.nbytes for array in state.cache.values())
        assert machine.cuda.uploaded - before < cache / 2


@pytest.mark.integration
def test_a_size_outside_of_the_profile_is_told(machine: Machine) -> None:
    with TensorrtSession(engine(machine, "embed_tokens")) as session:
        assert session.inputs["input_ids"] == (np.dtype(np.int64), ("input_ids_0", "input_ids_1"))
        found = session.run({"input_ids": np.zeros((1, 2), np.int32)})
        assert found["inputs_embeds"].shape[:2] == (1, 2)
        with pytest.raises(CheckFailed, match=rf"was built for input_ids from \(0, 0\) to \({MOST}, {MOST}\), and this is"):
            session.run({"input_ids": np.zeros((1, MOST + 1), np.int64)})
    with pytest.raises(Closed, match=r"embed_tokens\.sm90\.engine is closed"):
        session.run({"input_ids": np.zeros((1, 2), np.int64)})


@pytest.mark.integration
def test_what_cannot_be_opened_is_told(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.engine"
    with pytest.raises(InputError, match=r"build\.json cannot be read: .*; export again"):
        TensorrtSession(path)
    (tmp_path / "build.json").write_text('{"package": "os"}')
    with pytest.raises(InputError, match="'os' is no TensorRT"):
        TensorrtSession(path)
    (tmp_path / "build.json").write_text('{"package": "tensorrt"}')
    (tmp_path / "a.sm86.engine").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"has engines for sm86, this GPU is sm90: export there again, with --gpu sm90"):
        TensorrtSession(path)
    (tmp_path / "a.sm86.engine").rename(tmp_path / "a.local.engine")
    with pytest.raises(InputError, match=r"a\.local\.engine cannot be opened by tensorrt 10\.3\.0: it was built by another"):
        TensorrtSession(path)
    with pytest.raises(InputError, match="providers are ONNX Runtime's"):
        TensorrtSession(path, "cuda")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        EnvironmentLacks, match=r"built by tensorrt, which cannot be loaded .*: pip install 'vlmc\[engines\]'"
    ):
        TensorrtSession(path)


@pytest.mark.parametrize("pools", [True, False])
def test_arrays_go_to_the_gpu_and_back_and_leave_nothing(pools: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(pools=pools, room=4000)
    installed(monkeypatch, cuda)
    gpu = Gpu()
    assert gpu.architecture == "sm90"
    given = np.arange(12.0).reshape(3, 4)[:, ::2]  # not in one piece
    there = gpu.put(given)
    assert (there.shape, there.dtype, there.ndim, there.nbytes) == ((3, 2), given.dtype, 2, 48)
    assert np.array_equal(there, given)
    assert np.asarray(there, np.float16).dtype == np.float16
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(there, copy=False)
    empty = gpu.array((2, 0), np.float32)
    assert np.asarray(empty).shape == (2, 0)
    with pytest.raises(CheckFailed, match=r"the GPU cannot go on: out of memory \(cudaMalloc"):
        gpu.array((1000,), np.float64)
    del there, empty
    assert not cuda.held


def test_without_a_gpu_it_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's own binding, on a machine without a GPU or its driver; or without the binding."""
    if sys.platform == "linux":
        from cuda.bindings import runtime

        if runtime.cudaGetDeviceCount()[0] != runtime.cudaError_t.cudaSuccess:
            with pytest.raises(EnvironmentLacks, match=r"there is no NVIDIA GPU that can be used: .* install its driver"):
                Gpu()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EnvironmentLacks, match=r"CUDA's Python binding cannot be loaded .*: pip install cuda-bindings"):
        Gpu()


def test_the_stand_in_has_only_what_cuda_has() -> None:
    """Every name that is called there is one of NVIDIA's own binding."""
    from cuda.bindings import driver, runtime

    assert driver.cuuint64_t(5)
    names = [name for name in vars(Cuda) if name.startswith("cuda")]
    assert len(names) == 16
    for name in names:
        assert hasattr(runtime, name), name
        if isinstance(there := getattr(Cuda, name), type) and hasattr(there, "__members__"):
            own = getattr(runtime, name)
            assert {one.name: int(getattr(own, one.name)) for one in there} == {one.name: one.value for one in there}


def test_the_stand_in_has_only_what_tensorrt_has() -> None:
    real = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is made for x86-64 alone")
    from tests.runtime.gpu import standin

    for own, its in ((standin.Engine, real.ICudaEngine), (standin.Context, real.IExecutionContext)):
        for name in vars(own):
            assert name.startswith("_") or hasattr(its, name), name
    fake = tensorrt(Cuda())
    assert all(hasattr(real, name) for name in vars(fake))
    assert hasattr(real.Runtime, "deserialize_cuda_engine")
    assert real.nptype(real.DataType.INT64) is np.int64
    with pytest.raises(TypeError):
        real.nptype(real.DataType.BF16)
