"""Models as repair holds them: whole in every process, or by FSDP2 with the frozen weights in shards, one for each process.

A shard is some neighbouring rows of every weight; those of a block are gathered while it runs and dropped after it. What is
trained and the packed masks, both small, are whole in every process, so steps are those of processes without shards.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection

import torch
from accelerate.hooks import remove_hook_from_submodules
from accelerate.utils import parse_flag_from_env
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain.machine.memory import keep_large_apart
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.loading.precision import narrow
from vlmc.toolchain.settings import Precision, RepairSettings

_LARGE = 1 << 18  # bytes of a tensor that gets memory pages of its own: buffers for gathered weights come and go


class Loading(ABC):
    """A model that is being loaded: adapters are put on `model` first, then `settle` moves all of it to its device."""

    model: nn.Module

    @abstractmethod
    def settle(self, trained: Collection[nn.Parameter] = ()) -> nn.Module:
        """Move the weights and the trained parameters to the group's device; return the model."""


class Whole(Loading):
    """The whole model in this process."""

    def __init__(self, source: SavedModel, precision: Precision, group: ProcessGroup) -> None:
        stored = {} if precision == "fp32" else source.dtypes
        self.model, self.group = narrow(source.load(), stored, precision), group

    def settle(self, trained: Collection[nn.Parameter] = ()) -> nn.Module:
        return self.model.to(self.group.device)


class Sharded(Loading):
    """This process's shard of the weights; nothing else is read from the files.

    Raises:
        InputError: the model cannot be read tensor by tensor.
    """

    def __init__(self, source: SavedModel, precision: Precision, group: ProcessGroup) -> None:
        self.source, self.group = source, group
        if group.device.type == "cpu":
            keep_large_apart(_LARGE)
        self._streamed = source.stream(group.device)
        remove_hook_from_submodules(self._streamed.module)
        self.model = narrow(self._streamed.module, self._streamed.dtypes(), precision).requires_grad_(False)
        self._mesh = init_device_mesh(group.device.type, (group.size,))

    def settle(self, trained: Collection[nn.Parameter] = ()) -> nn.Module:
        for parameter in trained:
            parameter.data = parameter.data.to(self.group.device)
        numbers = [one for one in self.model.parameters() if one.dim() == 0]  # FSDP2 does not take scalars
        family = self.source.family
        blocks = [block for tower in family.towers for _, block in family.blocks(self.model, tower)]
        for unit in (*blocks, self.model):
            # the root too drops its weights after the forward pass: the shared teacher changes shards between passes
            fully_shard(unit, mesh=self._mesh, reshard_after_forward=True, ignored_params={*trained, *numbers})
        self._fill()
        return self.model

    def _fill(self) -> None:
        """Read the parameters that have no values yet; tied ones once."""
        files, state, read = open_weights(self.source.folder), dict[str, Tensor](), dict[str, Tensor]()
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if parameter.is_meta:
                stored = self._streamed.stored(name)
                if stored not in read:
                    with safe_open(files[stored].path, "pt") as file:
                        read[stored] = self._read(file.get_slice(stored), parameter)
                state[name] = read[stored]
        self.model.load_state_dict(state, strict=False, assign=True)

    def _read(self, stored: Tensor, parameter: Tensor) -> Tensor:
        if not isinstance(parameter, DTensor):
            return stored[...].to(self.group.device, parameter.dtype)
        rows = own_rows(parameter)
        part = stored[rows] if rows.stop > rows.start else torch.empty(0, *parameter.shape[1:])
        local = part.to(self.group.device, parameter.dtype)
        shape, stride = parameter.shape, parameter.stride()
        return DTensor.from_local(local, self._mesh, parameter.placements, run_check=False, shape=shape, stride=stride)


def shards(group: ProcessGroup) -> bool:
    """Whether `accelerate launch --use_fsdp` asked for shards, and there are several processes.

    Raises:
        InputError: it asked for something that vlmc does not support.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError("repair shards weights by FSDP2 only: add --fsdp_version 2 to accelerate launch --use_fsdp")
    if parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise InputError("repair keeps its shards on the GPU: leave --fsdp_offload_params out, or take more processes")
    return group.size > 1


def check_shards(options: RepairSettings, group: ProcessGroup, *, distilled: bool) -> None:
    """Raise InputError where shards are asked for with options that need the whole weights in every process."""
    if not shards(group):
        return
    if options.method == "masked-full":
        raise InputError(
            "--method masked-full trains as many values as there are weights, whole in every process: "
            "choose another method, or leave --use_fsdp out"
        )
    if distilled and options.teacher == "cached":
        raise InputError(
            "--teacher cached runs the dense model in each process by itself, which weights in shards do not allow: "
            "choose shared or copy, or leave --use_fsdp out"
        )


def own_rows(weight: Tensor) -> slice:
    """Return which rows of a weight this process holds; all rows where the weight is whole."""
    if not isinstance(weight, DTensor):
        return slice(0, len(weight))
    each = -(-len(weight) // weight.device_mesh.size())
    start = min(each * weight.device_mesh.get_local_rank(), len(weight))
    return slice(start, min(start + each, len(weight)))


def own_part(weight: Tensor) -> Tensor:
    """Return those rows; writing into them changes the weight."""
    return weight.to_local().detach() if isinstance(weight, DTensor) else weight.detach()


def shard_measures(model: nn.Module, group: ProcessGroup) -> dict[str, int]:
    """Return the number of shards and the bytes of frozen weights in this process between passes; {} without shards."""
    if not shards(group):
        return {}
    held = sum(own_part(parameter).nbytes for parameter in model.parameters() if not parameter.requires_grad)
    return {"shards": group.size, "weight_bytes_each": held}
