"""The layer inside what trainings wrap a model in: torch.compile, checkpointing, DistributedDataParallel, FSDP2."""

import os
import shutil
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.library import opcheck
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tests.repair import material
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.repair.adapters import Adapters, attach
from vlmc.toolchain.repair.kernels import pack
from vlmc.toolchain.repair.kernels.tiled import backward_product, product
from vlmc.toolchain.repair.methods import METHODS, AdapterSpec, LoRA, SparseLoRA

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Function'> should not be instantiated:DeprecationWarning"
)  # by torch.compile
PATIENCE = timedelta(seconds=120)  # gloo's own is half an hour
TOKENS = torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(1))


def adapted(kind: type[SparseLoRA] | type[LoRA] = SparseLoRA, dtype: torch.dtype = torch.float32) -> Adapters:
    """Return three blocks of two layers each, adapted, with a B that is not zero."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32)) for _ in range(3)]).to(dtype)
    linears = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    plan = {name: AdapterSpec(kind, 4, 8.0, torch.rand(one.weight.shape) > 0.5) for name, one in linears.items()}
    adapters = attach(model, plan)
    for layer in adapters.layers.values():
        nn.init.normal_(layer.get_parameter("lora_B"), std=0.1)
    return adapters


def gradients(adapters: Adapters, y: Tensor) -> dict[str, Tensor]:
    parameters = adapters.parameters()
    found = torch.autograd.grad(y.float().square().mean(), list(parameters.values()), allow_unused=True)
    return {name: grad for name, grad in zip(parameters, found, strict=True) if grad is not None}


def furthest(found: dict[str, Tensor], true: dict[str, Tensor]) -> float:
    """Return the greatest relative error; what autograd gives no gradient, a compiled graph may give zeros."""
    assert not any(found[name].any() for name in found.keys() - true.keys())
    return max(float((found[name] - one).norm() / one.norm()) for name, one in true.items())


@pytest.mark.integration
def test_the_operators_keep_what_torch_asks_of_operators() -> None:
    draw = torch.Generator().manual_seed(0)
    weight_OI, x_LI, grad_LO = (torch.randn(shape, generator=draw) for shape in ((16, 24), (5, 24), (5, 16)))
    a_RI, b_OR = torch.randn(3, 24, generator=draw), torch.randn(16, 3, generator=draw)
    packed_OP = pack(weight_OI > 0)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    for bias_O in (None, torch.randn(16, generator=draw)):
        opcheck(product, (x_LI, weight_OI, bias_O, packed_OP, a_RI, b_OR, 1.5, "tiled"), test_utils=checks)
    for asked in ((True, True), (True, False), (False, True)):
        opcheck(backward_product, (x_LI, grad_LO, weight_OI, packed_OP, a_RI, b_OR, 1.5, "tiled", *asked), test_utils=checks)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_compiled_model_is_one_graph_with_the_same_gradients(autocast: bool, checkpointed: bool) -> None:
    adapters = adapted()

    def answer(x: Tensor) -> Tensor:
        for block in adapters.model.children():
            x = checkpoint(block, x, use_reentrant=False) if checkpointed else block(x)
        return x

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        true = gradients(adapters, answer(TOKENS))
        torch._dynamo.reset()
        found = gradients(adapters, torch.compile(answer, backend="aot_eager", fullgraph=True)(TOKENS))
    assert furthest(found, true) < (1e-2 if autocast else 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_a_vlm_compiled_by_inductor_has_the_same_gradients(tmp_path: Path) -> None:
    source = material.pruned(material.dense("llava", tmp_path / "dense"), tmp_path / "pruned")
    assert source.artifact is not None
    model, masks = source.load().float(), load_masks(source.artifact.root, source.artifact.manifest)
    adapters = attach(model, METHODS["ressa"].specs(masks, (), 4, 8.0))
    for layer in adapters.layers.values():
        nn.init.normal_(layer.get_parameter("lora_B"), std=0.1)
    batch = material.encoder(source).question(material.samples(1)[0])
    true = gradients(adapters, model(**batch).logits)
    torch._dynamo.reset()
    found = gradients(adapters, torch.compile(model)(**batch).logits)
    assert furthest(found, true) < 1e-4


@pytest.mark.slow
def test_what_is_kept_for_backward_does_not_grow_under_compile() -> None:
    """The partitioner may keep any tensor of the graph; W_hat is none of them, for the operators hide it."""
    adapters = adapted()
    torch._dynamo.reset()
    compiled = torch.compile(adapters.model, backend="aot_eager", fullgraph=True)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(tuple(one.shape)) or one, lambda one: one):
        compiled(TOKENS)
    weights = [layer.weight for layer in adapters.layers.values()]
    assert sum(shape in {tuple(one.shape) for one in weights} for shape in kept) <= len(weights)


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_processes_have_the_gradients_of_one(wrapper: str, dtype: torch.dtype) -> None:
    """Each takes half of the batch; in bfloat16 the frozen weights are half as wide as what is trained."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    torch.multiprocessing.spawn(_compare, (port, wrapper, dtype), 2)


def _compare(rank: int, port: int, wrapper: str, dtype: torch.dtype) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        alone, shared = adapted(dtype=dtype), adapted(dtype=dtype)
        true = gradients(alone, alone.model(TOKENS.to(dtype)))
        wrapped = _wrap(shared.model, wrapper)
        wrapped(TOKENS[4 * rank :][:4].to(dtype)).float().square().mean().backward()
        assert furthest({name: _whole(one) for name, one in shared.parameters().items()}, true) < (
            1e-5 if dtype == torch.float32 else 1e-2
        )
    finally:
        dist.destroy_process_group()


def _wrap(model: nn.Module, wrapper: str) -> nn.Module:
    if wrapper == "ddp":
        return DistributedDataParallel(model)
    for block in model.children():
        fully_shard(block)
    return fully_shard(model)


def _whole(parameter: nn.Parameter) -> Tensor:
    grad = parameter.grad
    assert grad is not None
    return grad.full_tensor() if isinstance(grad, DTensor) else grad
