"""The dense model's predictions on disk: computed once, before training, so that one model is in memory at a time.

They are written in parts, each in one rename, so that a killed run resumes with the parts that are there. Samples are known
by their place in the training data; a part holds the samples of one range of places, in order.
Shapes: N answer tokens, V tokens of the vocabulary, K tokens kept.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from hashlib import sha256
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.errors import InputError
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saving import write_tensors
from vlmc.toolchain.repair.distillation.targets import SampledTokens, Target, TopTokens
from vlmc.toolchain.repair.distillation.teachers.base import Copy, Teacher
from vlmc.toolchain.repair.distillation.views import Seen
from vlmc.toolchain.repair.feeding import Batch, Batches
from vlmc.toolchain.settings import TrainingSettings

PART = 256  # places in a part
_NOTE = "cache.json"


def cache_folder(checkpoints: Path, group: ProcessGroup) -> Path:
    """Return where a process keeps its predictions, beside the run's checkpoints."""
    return checkpoints / f"teacher-{group.rank}-of-{group.size}"


class Cached(Teacher):
    """Cached predictions of the samples at these places of the batches' data.

    `dense` loads the dense model, only if a part is missing; `look` runs the student on a batch.

    Raises:
        InputError: the options need what a cache does not hold.
    """

    mode = "cached"

    def __init__(
        self,
        folder: Path,
        options: TrainingSettings,
        seed: int,
        *,
        batches: Batches,
        places: Iterable[int],
        dense: Callable[[], Copy],
        look: Callable[[Batch], Seen],
    ) -> None:
        if options.hidden:
            raise InputError("--hidden needs the dense model itself, not its cached logits: choose another --teacher")
        if options.cache == "sampled" and options.kl == "reverse":
            raise InputError("--kl reverse needs the teacher's probabilities, not sampled tokens: choose --cache top")
        self.folder, self.options, self.seed = folder, options, seed
        self.batches, self.places, self.dense, self.look = batches, sorted(set(places)), dense, look
        self.kind: type[TopTokens | SampledTokens] = TopTokens if options.cache == "top" else SampledTokens
        self._part = cache(lambda number: _Part.open(self._path(number)))

    def prepare(self, progress: Progress) -> None:
        """Compute the parts that are not there."""
        if (self.folder / _NOTE).is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        teacher = self.dense()
        parts = {number: list(places) for number, places in groupby(self.places, lambda place: place // PART)}
        with progress.task("teacher", len(parts)) as bar:
            for number, places in parts.items():
                if not self._path(number).is_file():
                    write_tensors(self._path(number), self._make(places, teacher))
                bar.advance()
        size = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        note = {"cache_bytes": size, "cache_kl_error": self._error(teacher)}
        write_text(self.folder / _NOTE, json.dumps(note) + "\n")

    def target(self, batch: Batch, indices: Sequence[int]) -> Target:
        rows = [self._part(index // PART).rows(index) for index in indices]
        device = batch.answers_N.device
        return self.kind(*(torch.cat([row[field.name] for row in rows]).to(device) for field in fields(self.kind)))

    def measures(self) -> dict[str, Any]:
        return {"teacher": f"cached, {self.options.cache} {self.options.cache_tokens}", **json.loads(self._read_note())}

    def _read_note(self) -> str:
        return (self.folder / _NOTE).read_text(encoding="utf-8")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"

    def _make(self, places: Sequence[int], teacher: Copy) -> dict[str, Tensor]:
        """Return one part: the fields of the samples' targets, the samples' places, and the bounds of their rows."""
        found, counts = [], []
        for start in range(0, len(places), self.options.batch):
            some = places[start : start + self.options.batch]
            batch = self.batches.of(some)
            tokens = batch.answered_BK.sum(1).tolist()
            counts += tokens
            pieces = torch.split(teacher.target(batch.to(teacher.device), some).logits_NV.cpu(), tokens)
            found += [self._keep(piece, place) for piece, place in zip(pieces, some, strict=True)]
        state = {field.name: torch.cat([getattr(one, field.name) for one in found]) for field in fields(self.kind)}
        bounds = torch.tensor([0, *counts]).cumsum(0)
        return state | {"places": torch.tensor(places), "bounds": bounds, "tokens_NK": state["tokens_NK"].to(torch.int32)}

    def _keep(self, logits_NV: Tensor, place: int) -> TopTokens | SampledTokens:
        temperature, count = self.options.temperature, self.options.cache_tokens
        if self.kind is TopTokens:
            return TopTokens.of(logits_NV, temperature, count)
        seed = int.from_bytes(sha256(f"vlmc cache {self.seed} {place}".encode()).digest()[:7])
        return SampledTokens.of(logits_NV, temperature, count, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _error(self, teacher: Copy) -> float:
        """Return the relative error of the cached divergence on the first samples."""
        places, options = self.places[: self.options.batch], self.options
        batch = self.batches.of(places).to(teacher.device)
        student_NV = self.look(batch).logits_NV
        true = teacher.target(batch, places).divergence(student_NV, options.kl, options.temperature)
        found = self.target(batch, places).divergence(student_NV, options.kl, options.temperature)
        return float(f"{abs(float(found - true)) / max(float(true), 1e-12):.3g}")


@dataclass(frozen=True)
class _Part:
    """An open part; rows are read when they are needed."""

    file: Any
    rows_of: dict[int, slice]
    names: list[str]

    @classmethod
    def open(cls, path: Path) -> "_Part":
        file: Any = safe_open(path, "pt")
        bounds, places = file.get_tensor("bounds").tolist(), file.get_tensor("places").tolist()
        rows = {place: slice(*pair) for place, pair in zip(places, pairwise(bounds), strict=True)}
        return cls(file, rows, [name for name in file.keys() if name not in ("places", "bounds")])  # noqa: SIM118

    def rows(self, place: int) -> dict[str, Tensor]:
        found = {name: self.file.get_slice(name)[self.rows_of[place]] for name in self.names}
        return found | {"tokens_NK": found["tokens_NK"].long()}
