"""Quantising a whole model, block by block: each is measured on what the quantised blocks before it give out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.rounding import Rounded
from vlmc.toolchain.calibration import Block, Calibration, Need, encode
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families.base import linears
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.memory import return_memory
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import write_tensors
from vlmc.toolchain.prune.precision import TYPES, choose_precision
from vlmc.toolchain.quantise.gptq import Found, gptq
from vlmc.toolchain.settings import RoundingSettings


@dataclass(frozen=True)
class Quantised:
    """The layers that were rounded on calibration data, by name, and what is said of it."""

    layers: dict[str, Rounded]
    report: dict[str, Any]


@torch.no_grad()
def quantise(
    source: SavedModel,
    layers: Collection[str],
    options: RoundingSettings,
    samples: Sequence[Sample],
    scratch: Path,
    progress: Progress,
) -> Quantised:
    """Round the weights of those layers that run on the samples; blocks' weights are kept in `scratch` for later towers.

    Raises:
        InputError: the samples cannot be used, activations are NaN or infinite, or there are several processes.
        EnvironmentLacks: the device is not there.
        CheckFailed: a Hessian cannot be factored.
    """
    device, group = choose_device(options.device), ProcessGroup()
    if group.size > 1:
        raise InputError(f"--rounding {options.rounding} runs in one process: start it without torchrun")
    precision = choose_precision("auto", source.folder, device)
    model, family = source.stream(device, TYPES[precision]), source.family
    encoder = Encoder(source.load_processor(), family, model.module)
    inputs, _ = encode(samples, encoder, model, group, "all", labels=False)
    calibration = Calibration(model, family, inputs, group)
    blocks, found = calibration.by_block(layers), dict[str, Found]()
    with progress.task("round", len(blocks)) as bar:
        for block in calibration.walk(blocks, Need.HESSIAN):
            found |= _round(block, blocks[block.name], calibration, options.group, scratch)
            bar.advance()
    return Quantised({name: one.rounded for name, one in found.items()}, _report(found, options, len(samples), precision))


def _round(block: Block, layers: Collection[str], calibration: Calibration, span: int, scratch: Path) -> dict[str, Found]:
    """Round a block's layers; it computes with the rounded weights from now on, and so do later passes over the files."""
    model, found, weights = calibration.model, dict[str, Found](), {}
    for inner, layer in linears(block.module):
        name = f"{block.name}.{inner}"
        if name not in layers or inner not in block.statistics:
            continue
        found[name] = gptq(model.read(f"{name}.weight"), block.statistics[inner], span)
        weight_OI = torch.from_numpy(found[name].rounded.weight_OI).to(model.dtype(f"{name}.weight"))
        layer.weight.data.copy_(weight_OI)
        weights[f"{name}.weight"] = weight_OI
    path = scratch / f"{block.name}.safetensors"
    write_tensors(path, weights)
    for name in weights:
        model.replace(name, path, name)
    for statistics in block.statistics.values():
        statistics.release()
    return_memory()
    return found


def _report(found: dict[str, Found], options: RoundingSettings, samples: int, precision: str) -> dict[str, Any]:
    """Say what was done: squared errors of the layers' outputs, as shares of the squared outputs."""
    errors = {name: {"error": one.error, "nearest": one.nearest} for name, one in found.items()}
    raised = {name: one.raised_damping for name, one in found.items() if one.raised_damping is not None}
    means = {key: fmean(one[key] for one in errors.values()) if errors else None for key in ("error", "nearest")}
    about = {"method": options.rounding, "samples": samples, "precision": precision, "raised_damping": raised}
    return about | {"mean": means, "layers": errors}
