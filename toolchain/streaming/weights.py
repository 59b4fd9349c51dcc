"""A model whose weights stay in its safetensors files: a module gets them when it runs and gives them back after it.

The hooks are accelerate's; transformers says under which name each parameter lies in the files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, attach_align_device_hook, remove_hook_from_submodules
from accelerate.utils import OffloadedWeightsLoader, set_module_tensor_to_device
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile

FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of weights that can be pruned, by safetensors' names."""


class StreamedModel:
    """A model that transformers loaded with `device_map={"": "disk"}`; it computes in float32 on `device`."""

    def __init__(self, module: nn.Module, folder: Path, device: torch.device) -> None:
        self.module, self.device = module, device
        self._folder = folder.resolve()
        self._weights = _loader(module)
        self._names: dict[str, str] = {parameter: entry["weight_name"] for parameter, entry in self._index.items()}
        self._files = {parameter: Path(entry["safetensors_file"]) for parameter, entry in self._index.items()}
        remove_hook_from_submodules(module)
        attach_align_device_hook(module, execution_device=device, offload=True, weights_map=self._weights)

    @property
    def _index(self) -> dict[str, dict[str, Any]]:
        index: dict[str, dict[str, Any]] = self._weights.index
        return index

    def stored(self, parameter: str) -> str:
        """Return the name of a parameter, such as `model.layers.0.mlp.up_proj.weight`, in the checkpoint's files.

        Raises:
            InputError: transformers puts that parameter together from several tensors.
        """
        if parameter not in self._names or self._files[parameter].resolve().parent != self._folder:
            raise InputError(f"{parameter} is stored in another form than the model uses it: vlmc cannot write it back")
        return self._names[parameter]

    def dtype(self, parameter: str) -> torch.dtype:
        """Return the type that a parameter is stored in.

        Raises:
            InputError: it is stored in a type that cannot be pruned, such as float8.
        """
        stored = TensorFile(self._files[parameter]).dtype(self.stored(parameter))
        if stored not in FLOATS:
            raise InputError(f"{parameter} is stored as {stored}: give a checkpoint in {', '.join(FLOATS)}")
        return FLOATS[stored]

    def replace(self, parameter: str, file: Path, name: str) -> None:
        """From now on read a parameter, and those tied to it, from another safetensors file, where it is called `name`."""
        for tied, stored in self._names.items():
            if stored == self._names[parameter]:
                self._index[tied] = {**self._index[tied], "safetensors_file": str(file), "weight_name": name}

    def read(self, parameter: str) -> Tensor:
        """Return a parameter in float32."""
        return torch.as_tensor(self._weights[parameter])

    @contextmanager
    def resident(self, name: str) -> Iterator[nn.Module]:
        """Yield a module with all its weights on the device, in float32; after the block they are dropped."""
        module = self.module.get_submodule(name)
        remove_hook_from_submodules(module)
        inside = [inner for inner, _ in module.named_parameters(remove_duplicate=False)]
        for inner in inside:
            set_module_tensor_to_device(module, inner, self.device, value=self._weights[f"{name}.{inner}"])
        try:
            yield module
        finally:
            for inner in inside:
                set_module_tensor_to_device(module, inner, "meta")
            attach_align_device_hook(
                module, execution_device=self.device, offload=True, weights_map=self._weights, module_name=name
            )


def _loader(module: nn.Module) -> OffloadedWeightsLoader:
    """Return what transformers reads the weights of an offloaded model with."""
    hooks = (getattr(inner, "_hf_hook", None) for inner in module.modules())
    return next(hook.weights_map.dataset for hook in hooks if isinstance(hook, AlignDevicesHook) and hook.offload)
