"""merge: one adapter or several become part of the weights that they were trained on, which keep their pattern."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vlmc.runtime.artifact import Artifact, Draft, Manifest, digest_of_files
from vlmc.runtime.artifact.folder import MANIFEST, is_model
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.tensors import MASKS
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.masks import load_masks
from vlmc.toolchain.models import Checkpoint
from vlmc.toolchain.repair.adapter_files import FOLDER, SavedAdapter, attach_saved, digest_of_adapter, load_adapter
from vlmc.toolchain.repair.adding import add_up
from vlmc.toolchain.repair.carry import carry
from vlmc.toolchain.repair.merging import check_masks, greatest_difference, logits_of, merge, noise_samples
from vlmc.toolchain.repair.reports import PLOT, TABLE
from vlmc.toolchain.saving import save_model, tensor_names
from vlmc.toolchain.stages.base import Stage
from vlmc.toolchain.verify import ensure_sparsity


class Merge(Stage):
    """Merge in float32, re-mask, round to the checkpoint's type; then prove that the saved model gives the same logits.

    What is merged is the source's own adapter, where it has one, and `others`: folders of repaired artifacts, or of adapters
    alone, that were trained on the same pruned model. `samples` are what base + adapters and the merged model are compared
    on; pictures of noise where none are given.
    """

    name = "merge"

    def __init__(self, samples: Sequence[Sample] | None = None, others: Sequence[Path] = ()) -> None:
        self.samples = noise_samples(4) if samples is None else samples
        self.others = [_adapter_of(folder) for folder in others]

    def settings(self) -> dict[str, Any]:
        return {"others": [digest_of_adapter(folder) for folder in self.others]} if self.others else {}

    def requires(self, source: Checkpoint) -> None:
        artifact = source.artifact
        states = ("adapted", "pruned") if self.others else ("adapted",)
        if artifact is None or artifact.manifest.state not in states:
            state = "no vlmc artifact" if artifact is None else artifact.manifest.state
            raise InputError(f"{source.name} is {state}: merge works on a repaired artifact, as 'vlmc repair' writes it")
        artifact.verify_files()
        folders, base = self._adapters(artifact), _base_digest(artifact)
        for folder in folders:
            _check(folder, load_adapter(folder), base)
        if len({digest_of_adapter(folder) for folder in folders}) < len(folders):
            raise InputError("the same adapter is named twice: name each once")

    def work(self, source: Checkpoint, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact = source.artifact
        assert artifact is not None
        encoder = Encoder(source.load_processor(), artifact.manifest.serving)
        saved = [load_adapter(folder) for folder in self._adapters(artifact)]
        before = self._merge(source, artifact, saved, encoder, draft)
        carry(artifact.root, draft.root, [path for path in artifact.manifest.files if path in (MASKS, TABLE, PLOT)])
        merged = Checkpoint(source.name, draft.root).load()
        found = greatest_difference(before, logits_of(merged, encoder, self.samples), source.dtype)
        measures = {"logit_difference": float(f"{found:.3g}"), "samples": len(self.samples)}
        told = {"adapters": [one.method.name for one in saved]} if len(saved) > 1 else {}
        return artifact.manifest.model_copy(update={"state": "merged"}), measures | told

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        if (result.root / FOLDER).exists():
            raise CheckFailed(f"{result.root} still holds an adapter after merging")

    def _adapters(self, artifact: Artifact) -> list[Path]:
        own = [artifact.root / FOLDER] if artifact.manifest.state == "adapted" else []
        return own + self.others

    def _merge(
        self, source: Checkpoint, artifact: Artifact, saved: Sequence[SavedAdapter], encoder: Encoder, draft: Draft
    ) -> list[torch.Tensor]:
        """Write the merged model; return the logits of base and adapters, from before."""
        model, layers = source.load(), artifact.manifest.layers
        masks = load_masks(artifact.root, artifact.manifest)
        check_masks(model, masks, layers)
        several = []
        for one in saved:
            several.append(attach_saved(model, one, masks))
            several[-1].detach()
        adapters = add_up(model, several)
        before = logits_of(model, encoder, self.samples)
        merge(adapters, source.dtype)
        save_model(model, source, draft.root)
        moved = [name for name, tensor in tensor_names(model, draft.root, layers).items() if tensor != layers[name].tensor]
        if moved:
            raise CheckFailed(f"{moved[0]} was saved under another name than {layers[moved[0]].tensor}")
        return before


def _adapter_of(folder: Path) -> Path:
    """Return the adapter's folder: that of an artifact, once its bytes are what the manifest lists, or the folder itself."""
    if not (folder / MANIFEST).is_file():
        return folder
    Artifact.open(folder).verify_files(f"{FOLDER}/")
    return folder / FOLDER


def _check(folder: Path, saved: SavedAdapter, base: str) -> None:
    """Raise InputError unless the adapter may be merged into the model of this digest."""
    if saved.method.merged is None:
        raise InputError(
            f"{folder} was trained by {saved.method.name}, which is kept apart: merged, its update would fill what was "
            "pruned; repair with ressa, or with lora-remask to prune the sum again"
        )
    if saved.base_digest != base:
        raise InputError(f"{folder} was trained on another model than the one beside it: repair again")


def _base_digest(artifact: Artifact) -> str:
    """Return the digest of the model without its adapter: that of the pruned artifact."""
    files = artifact.manifest.files
    return digest_of_files(
        {path: file.sha256 for path, file in files.items() if is_model(path) and not path.startswith(f"{FOLDER}/")}
    )
