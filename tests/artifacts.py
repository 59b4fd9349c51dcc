"""Artifacts for tests: a checkpoint whose prunable layers are masked by magnitude, without the stages that prune."""

from pathlib import Path

import torch

from tests import pico
from vlmc.runtime.artifact import Artifact, Layer, Manifest, Origin, write
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.masks import save_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.progress import Progress
from vlmc.toolchain.saving import save_model, tensor_names
from vlmc.toolchain.settings import ExportSettings
from vlmc.toolchain.stages.export import export


def pruned(checkpoint: Path, destination: Path, target: str = "2:4") -> Artifact:
    """Mask every prunable layer of a checkpoint and write the artifact."""
    source = Checkpoint.find(str(checkpoint))
    model, family = source.load(), source.family
    serving = family.serving(model, source.load_processor())
    parts, masks = family.prunable(model), {}
    for name in parts:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        masks[name] = SparsityPattern.parse(target).mask(weight.detach().abs())
        weight.data.mul_(masks[name])
        weight.data.add_(0.0)  # turns -0.0 into +0.0
    with write(destination) as draft:
        save_model(model, source, draft.root)
        tensors = tensor_names(model, draft.root, parts)
        save_masks(draft.root, {tensors[name]: mask for name, mask in masks.items()})
        layers = {name: Layer(tensor=tensors[name], pattern=target, part=part) for name, part in parts.items()}
        origin = Origin(model="pico", digest=source.digest)
        draft.seal(
            Manifest(family=family.model_type, state="pruned", origin=origin, layers=layers, serving=serving, history=())
        )
    return Artifact.open(destination)


def exported(family: str, base: Path) -> Path:
    """Return the family's pico artifact with its ONNX graphs, made once in `base`: pytest's folder for the whole run."""
    folder = base / f"exported-{family}"
    if not folder.exists():
        checkpoint = pico.save(family, base / f"pico-{family}")
        export(pruned(checkpoint, folder), ExportSettings(), "onnx", Progress(quiet=True))
    return folder
