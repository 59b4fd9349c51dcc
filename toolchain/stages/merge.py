"""merge: the adapter of a repaired artifact becomes part of its weights, which keep their pattern."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vlmc.runtime.artifact import Artifact, Draft, Manifest, digest_of_files
from vlmc.runtime.artifact.folder import is_model
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.tensors import MASKS
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.repair.adapter_files import FOLDER, attach_saved, load_adapter
from vlmc.toolchain.repair.carry import carry
from vlmc.toolchain.repair.merging import check_masks, greatest_difference, logits_of, merge, noise_samples
from vlmc.toolchain.repair.reports import REPORT
from vlmc.toolchain.saving import save_model
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.verify import ensure_sparsity


class Merge(Stage):
    """Merge in float32, re-mask, round to the checkpoint's type; then prove that the saved model gives the same logits.

    `samples` are what the two are compared on; pictures of noise where none are given.
    """

    name = "merge"

    def __init__(self, samples: Sequence[Sample] | None = None) -> None:
        self.samples = noise_samples(4) if samples is None else samples

    def settings(self) -> dict[str, Any]:
        return {}

    def requires(self, source: Checkpoint) -> None:
        artifact = source.artifact
        if artifact is None or artifact.manifest.state != "adapted":
            state = "no vlmc artifact" if artifact is None else artifact.manifest.state
            raise InputError(f"{source.name} is {state}: merge works on a repaired artifact, as 'vlmc repair' writes it")
        artifact.verify_files()
        if load_adapter(artifact.root / FOLDER).base_digest != _base_digest(artifact):
            raise InputError(f"{artifact.root / FOLDER} was trained on another model than the one beside it: repair again")

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact = source.artifact
        assert artifact is not None
        model = source.load()
        encoder = Encoder(source.load_processor(), source.family, model)
        before = self._merge(model, source, artifact, encoder, draft)
        carry(artifact.root, draft.root, [path for path in artifact.manifest.files if path in (MASKS, REPORT)])
        merged = Checkpoint(source.name, draft.root).load()
        found = greatest_difference(before, logits_of(merged, encoder, self.samples), source.dtype)
        measures = {"logit_difference": float(f"{found:.3g}"), "samples": len(self.samples)}
        return artifact.manifest.model_copy(update={"state": "merged"}), measures

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        if (result.root / FOLDER).exists():
            raise CheckFailed(f"{result.root} still holds an adapter after merging")

    def _merge(
        self, model: nn.Module, source: Checkpoint, artifact: Artifact, encoder: Encoder, draft: Draft
    ) -> list[torch.Tensor]:
        """Merge in place and write the model; return the logits of base and adapter, from before."""
        layers = artifact.manifest.layers
        masks = load_masks(artifact.root, artifact.manifest)
        check_masks(model, masks, layers)
        saved = load_adapter(artifact.root / FOLDER)
        adapters = attach_saved(model, saved, masks)
        before = logits_of(model, encoder, self.samples)
        merge(adapters, source.dtype)
        files = source.stream(torch.device("cpu"))
        changed = {name: model.get_parameter(f"{name}.weight").to(source.dtype) for name in adapters.originals}
        save_model(source.folder, draft.root, ((files.stored(f"{name}.weight"), weight) for name, weight in changed.items()))
        return before


def _base_digest(artifact: Artifact) -> str:
    """Return the digest of the model without its adapter: that of the pruned artifact."""
    files = artifact.manifest.files
    return digest_of_files(
        {path: file.sha256 for path, file in files.items() if is_model(path) and not path.startswith(f"{FOLDER}/")}
    )
