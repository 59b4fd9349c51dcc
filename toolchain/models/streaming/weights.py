"""A model whose weights stay in its safetensors files: a module loads them when it runs and drops them afterwards.

The hooks that do it are accelerate's.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import attach_align_device_hook, remove_hook_from_module, remove_hook_from_submodules
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor, nn

from vlmc.runtime.errors import InputError
from vlmc.runtime.tensors import TensorFile, open_weights
from vlmc.toolchain.machine.memory import return_memory
from vlmc.toolchain.models.streaming.reading import FLOATS, Parameters, Place

HELD, LITTLE = 0.2, 128 << 20
"""While samples run up to a tower, weights may take this share of the model's bytes, or this many bytes if that is more."""


class StreamedModel:
    """A model whose parameters are read from its safetensors files when they are needed; it computes in `precision`.

    What transformers keeps in float32 in a model of any type stays so. `build` makes the model from a state dict, as
    transformers' `from_pretrained(None, config=..., state_dict=...)` does. It gets placeholders that take no memory. Each
    holds the number of its tensor, so that a parameter's tensor is known whatever name transformers gives the parameter.

    Raises:
        InputError: a parameter is put together from several tensors.
    """

    def __init__(
        self,
        folder: Path,
        build: Callable[[dict[str, Tensor]], nn.Module],
        device: torch.device,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.precision = device, precision
        self._files = open_weights(folder)
        order = sorted(self._files)
        marks = {name: torch.tensor(float(place)).expand(self._files[name].shape(name)) for place, name in enumerate(order)}
        self.module = build(marks)
        state = {name: order[_number(name, mark)] for name, mark in self.module.state_dict(keep_vars=True).items()}
        self._names = {name: state[name] for name, _ in self.module.named_parameters(remove_duplicate=False)}
        self._wide = _kept_in_float32(self.module, precision)
        self._weights = Parameters()
        for name, stored in self._names.items():
            self._weights.put(name, Place(self._files[stored], stored), self._type(name))
            set_module_tensor_to_device(self.module, name, "meta", dtype=self._type(name))
        self._read_buffers({name: stored for name, stored in state.items() if name not in self._names})
        _say_device(self.module, device)
        self._hook(self.module)

    def stored(self, parameter: str) -> str:
        """Return the name of a parameter, such as `model.layers.0.mlp.up_proj.weight`, in the model's files."""
        return self._names[parameter]

    def dtype(self, parameter: str) -> torch.dtype:
        """Return the type that a parameter is stored in.

        Raises:
            InputError: it is stored in a type that cannot be pruned, such as float8.
        """
        stored = self._files[self._names[parameter]].dtype(self._names[parameter])
        if stored not in FLOATS:
            raise InputError(f"{parameter} is stored as {stored}: give a model in {', '.join(FLOATS)}")
        return FLOATS[stored]

    def dtypes(self) -> dict[str, torch.dtype | None]:
        """Return the types that all parameters are stored in; None for those that are not in `FLOATS`."""
        return {name: FLOATS.get(self._files[stored].dtype(stored)) for name, stored in self._names.items()}

    def put(self, name: str, module: nn.Module) -> None:
        """Replace a module; the new one's parameters, with the names of the old ones, are read when it runs."""
        self.module.set_submodule(name, module)
        self._hook(module, name)

    @contextmanager
    def by_block(self, names: Sequence[str]) -> Iterator[None]:
        """Inside, these modules, none inside another, load all their weights when they run and drop them afterwards."""
        with ExitStack() as undo:
            for name in names:
                block = self.module.get_submodule(name)
                remove_hook_from_submodules(block)
                undo.callback(self._hook, block, name)
                enter = block.register_forward_pre_hook(lambda block, _, name=name: self._fill(block, name))
                leave = block.register_forward_hook(lambda block, *_: self._empty(block), always_call=True)
                undo.callback(enter.remove)
                undo.callback(leave.remove)
            yield

    @contextmanager
    def ready(self, run: Callable[[], object]) -> Iterator[None]:
        """Call `run`; then, inside, keep the weights of the modules that ran, as far as `HELD` and `LITTLE` allow.

        So what runs for every sample is not read for each of them.
        """
        ran: dict[str, int] = {}
        with ExitStack() as watched:
            for name, module in self.module.named_modules():
                size = sum(parameter.nbytes for parameter in module.parameters())
                if size and not list(module.children()):
                    handle = module.register_forward_pre_hook(lambda *_, name=name, size=size: ran.update({name: size}))
                    watched.callback(handle.remove)
            run()
        whole = sum(file.span(name)[1] - file.span(name)[0] for name, file in self._files.items())
        room = max(HELD * whole, LITTLE)
        with ExitStack() as held:
            for name, size in ran.items():
                if size <= room:
                    room -= size
                    held.enter_context(self.resident(name))
            yield

    def hold_loose(self) -> None:
        """Keep the parameters of modules that have others inside, such as query tokens: they are few, and small.

        Who takes a model apart uses them without running their module.
        """
        for name, module in self.module.named_modules():
            own = [one for one, _ in module.named_parameters(recurse=False)]
            if own and list(module.children()):
                remove_hook_from_module(module)
                for one in own:
                    full = f"{name}.{one}".lstrip(".")
                    set_module_tensor_to_device(self.module, full, self.device, value=self._weights[full])

    def replace(self, parameter: str, file: Path, name: str) -> None:
        """From now on read a parameter, and those tied to it, from another safetensors file, where it is called `name`."""
        place = Place(TensorFile(file), name)
        for tied, stored in self._names.items():
            if stored == self._names[parameter]:
                self._weights.put(tied, place, self._type(tied))

    def read(self, parameter: str) -> Tensor:
        """Return a parameter in float32 on the device, whatever type the model computes in."""
        return self._weights.stored(parameter).to(self.device, torch.float32)

    def _type(self, parameter: str) -> torch.dtype:
        return torch.float32 if self._wide.search(parameter) else self.precision

    def _read_buffers(self, stored: dict[str, str]) -> None:
        for name, tensor in stored.items():
            value = Place(self._files[tensor], tensor).read()
            set_module_tensor_to_device(self.module, name, self.device, value=value)

    @contextmanager
    def resident(self, name: str) -> Iterator[nn.Module]:
        """Yield a module with all its weights on the device, as the model computes with them, then drop them."""
        module = self.module.get_submodule(name)
        remove_hook_from_submodules(module)
        try:
            self._fill(module, name)
            yield module
        finally:
            self._empty(module)
            self._hook(module, name)

    def _fill(self, module: nn.Module, name: str) -> None:
        for inner, _ in list(module.named_parameters(remove_duplicate=False)):
            set_module_tensor_to_device(module, inner, self.device, value=self._weights[f"{name}.{inner}"])

    def _empty(self, module: nn.Module) -> None:
        for inner, _ in list(module.named_parameters(remove_duplicate=False)):
            set_module_tensor_to_device(module, inner, "meta")
        return_memory()

    def _hook(self, module: nn.Module, name: str = "") -> None:
        """Have a module's weights read when it runs and dropped afterwards, leaf by leaf."""
        attach_align_device_hook(
            module, execution_device=self.device, offload=True, weights_map=self._weights, module_name=name
        )


def _say_device(model: nn.Module, device: torch.device) -> None:
    """Make transformers' models report the device that they compute on: their parameters, which they ask, are placeholders.

    Idefics3 moves its embeddings there. The classes keep their names, by which transformers knows what they can record.
    """
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            kind: Any = type(module)
            names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
            module.__class__ = type(kind.__name__, (kind,), names | {"device": device})


def _kept_in_float32(model: nn.Module, precision: torch.dtype) -> re.Pattern[str]:
    """Return a pattern for the names of the parameters that transformers keeps in float32 in a model of that type."""
    some: Any = model
    kept = set(some._keep_in_fp32_modules_strict or ())
    if precision is torch.float16:
        kept |= set(some._keep_in_fp32_modules or ())
    return re.compile("|".join(rf"(?:^|\.){part}(?:$|\.)" for part in sorted(kept)) or r"(?!)")


def _number(name: str, mark: Tensor) -> int:
    if any(mark.stride()):
        raise InputError(f"{name} is put together from several tensors of the model's files, which vlmc cannot write back")
    return int(mark.flatten()[0])
