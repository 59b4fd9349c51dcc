"""merge: one adapter or several become part of the weights that they were trained on, which keep their pattern."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vlmc.runtime.artifact import Artifact, Draft, Manifest, digest_of_files
from vlmc.runtime.artifact.folder import MANIFEST, model_files
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.tensors import MASKS
from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.machine.memory import keep_large_apart
from vlmc.toolchain.models.masks import KeepMasks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import carry, save_model
from vlmc.toolchain.repair.adapters.examples import COUNT, encode, encode_examples, in_batches, trained_on
from vlmc.toolchain.repair.adapters.files import FOLDER, SavedAdapter, digest_of_adapter, load_adapter
from vlmc.toolchain.repair.adapters.merging import Merging
from vlmc.toolchain.repair.adapters.proving import check_saved, prove_logits
from vlmc.toolchain.repair.training.reports import PLOT, TABLE
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import DataSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.states import ModelState


class Merge(ArtifactStage):
    """Merge in float32, re-mask, round to each tensor's stored type, layer by layer; then prove what was written.

    What is merged is the source's own adapter, where it has one, and `others`: folders of repaired artifacts, or of adapters
    alone, that were trained on the same pruned model. `samples` are what base + adapters and the merged model are compared
    on; where none are given, some of `data`, else of what the history says the adapters were trained on, else noise.
    """

    name, produces = "merge", "merged"
    accepts: tuple[ModelState, ...] = ("adapted",)

    def __init__(
        self, samples: Sequence[Sample] | None = None, others: Sequence[Path] = (), data: DataSettings | None = None
    ) -> None:
        super().__init__()
        self.samples, self.data = samples, data
        self.others = [_adapter_of(folder) for folder in others]
        if others:
            self.accepts = ("adapted", "pruned")

    def settings(self) -> dict[str, Any]:
        return {"others": [digest_of_adapter(folder) for folder in self.others]} if self.others else {}

    def requires(self, source: SavedModel) -> None:
        artifact = source.artifact
        assert artifact is not None
        artifact.verify_files()
        folders, base = self._adapters(artifact), _base_digest(artifact)
        for folder in folders:
            _check(folder, load_adapter(folder), base)
        if len({digest_of_adapter(folder) for folder in folders}) < len(folders):
            raise InputError("the same adapter is named twice: name each once")

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact = source.artifact
        assert artifact is not None
        keep_large_apart()
        manifest, saved = artifact.manifest, [load_adapter(folder) for folder in self._adapters(artifact)]
        masks, cpu = KeepMasks(artifact.root, manifest), torch.device("cpu")
        merging = Merging(source.stream(cpu), manifest.layers, masks, saved)
        merging.check_masks()
        save_model(source.folder, draft.root, merging.weights(), code=source.trust)
        carry(artifact.root, draft.root, [path for path in manifest.files if path in (MASKS, TABLE, PLOT)])
        check_saved(merging, draft.root)
        encoder = Encoder(source.load_processor(), source.family, merging.model.module)
        examples, noise = self._examples(artifact, encoder)
        merged = SavedModel(source.name, draft.root, source.trust).stream(cpu)
        proof = prove_logits(merging, merged, source.family, in_batches(examples, encoder))
        told: dict[str, Any] = {"adapters": [one.method.name for one in saved]} if len(saved) > 1 else {}
        told |= {"noise": True} if noise else {}
        return manifest, {**proof.measures(), "samples": len(examples), **told}

    def _examples(self, artifact: Artifact, encoder: Encoder) -> tuple[list[Encoded], bool]:
        """Return what both models are run on, and whether that is noise."""
        if self.samples is not None and (found := encode(self.samples, encoder)):
            return found, False
        roots = [folder.parent for folder in self._adapters(artifact) if (folder.parent / MANIFEST).is_file()]
        told = [self.data, *(trained_on(Artifact.open(root).manifest) for root in roots)]
        found = encode_examples([one for one in told if one is not None], encoder)
        return (found, False) if found else ([encoder.answered(sample) for sample in probes(COUNT)], True)

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        if (result.root / FOLDER).exists():
            raise CheckFailed(f"{result.root} still holds an adapter after merging")

    def _adapters(self, artifact: Artifact) -> list[Path]:
        own = [artifact.root / FOLDER] if artifact.manifest.state == "adapted" else []
        return own + self.others


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
    base = [path for path in model_files(files) if not path.startswith(f"{FOLDER}/")]
    return digest_of_files({path: files[path].sha256 for path in base})
