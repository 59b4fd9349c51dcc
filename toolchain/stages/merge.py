"""merge: one adapter or several become part of the weights that they were trained on, which keep their pattern."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vlmc.runtime.artifact import Artifact, Draft, Manifest
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.tensors import MASKS
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.memory import keep_large_apart
from vlmc.toolchain.models.masks import KeepMasks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.models.saving import carry, save_model
from vlmc.toolchain.repair.adapters import (
    FOLDER,
    Merging,
    check_adapters,
    check_saved,
    choose_examples,
    digest_of_adapter,
    find_adapter,
    in_batches,
    load_adapter,
    prove_logits,
)
from vlmc.toolchain.reporting.paths import CURVES, PLOT
from vlmc.toolchain.reporting.verification import ensure_sparsity
from vlmc.toolchain.settings import DataSettings
from vlmc.toolchain.stages.base import ArtifactStage
from vlmc.toolchain.stages.states import ModelState


class Merge(ArtifactStage):
    """Merge in float32, mask again, round to each tensor's stored type, layer by layer; then prove what was written.

    The source's own adapter, if it has one, is merged, and `others`: folders of repaired artifacts, or of adapters alone,
    that were trained on the same pruned model. Base + adapters and the merged model are compared on `samples`; without
    them on some of `data`, else of the data that the history names, else on noise.
    """

    name, produces = "merge", "merged"
    accepts: tuple[ModelState, ...] = ("adapted",)

    def __init__(
        self, samples: Sequence[Sample] | None = None, others: Sequence[Path] = (), data: DataSettings | None = None
    ) -> None:
        super().__init__()
        self.samples, self.data = samples, data
        self.others = [find_adapter(folder) for folder in others]
        if others:
            self.accepts = ("adapted", "pruned")

    def settings(self) -> dict[str, Any]:
        return {"others": [digest_of_adapter(folder) for folder in self.others]} if self.others else {}

    def requires(self, source: SavedModel) -> None:
        artifact = source.artifact
        assert artifact is not None
        artifact.verify_files()
        check_adapters(self._adapters(artifact), artifact)

    def work(self, source: SavedModel, draft: Draft) -> tuple[Manifest, dict[str, Any]]:
        artifact = source.artifact
        assert artifact is not None
        keep_large_apart()
        manifest, folders, cpu = artifact.manifest, self._adapters(artifact), torch.device("cpu")
        adapters = [load_adapter(folder) for folder in folders]
        merging = Merging(source.stream(cpu), manifest.layers, KeepMasks(artifact.root, manifest), adapters)
        merging.check_masks()
        save_model(source.folder, draft.root, merging.weights(), code=source.trust)
        carry(artifact.root, draft.root, [path for path in manifest.files if path in (MASKS, CURVES, PLOT)])
        check_saved(merging, draft.root)
        encoder = Encoder(source.load_processor(), source.family, merging.model.module)
        examples = choose_examples(encoder, self.samples, self.data, folders)
        merged = SavedModel(source.name, draft.root, source.trust).stream(cpu)
        proof = prove_logits(merging, merged, source.family, in_batches(examples.encoded, encoder))
        told: dict[str, Any] = {"adapters": [one.method.name for one in adapters]} if len(adapters) > 1 else {}
        told |= {"noise": True} if examples.noise else {}
        return manifest, {**proof.measures(), "samples": len(examples.encoded), **told}

    def ensures(self, result: Artifact) -> None:
        ensure_sparsity(result)
        if (result.root / FOLDER).exists():
            raise CheckFailed(f"{result.root} still holds an adapter after merging")

    def _adapters(self, artifact: Artifact) -> list[Path]:
        own = [artifact.root / FOLDER] if artifact.manifest.state == "adapted" else []
        return own + self.others
