"""What a teacher is, and the plain one: a second copy of the dense model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.repair.distillation.targets import FullTarget, Target
from vlmc.toolchain.repair.distillation.views import View
from vlmc.toolchain.repair.feeding import Batch
from vlmc.toolchain.settings import TeacherMode


class Teacher(ABC):
    """The dense model, in some form; it never learns."""

    mode: ClassVar[TeacherMode]

    @abstractmethod
    def target(self, batch: Batch, indices: Sequence[int]) -> Target:
        """Return what the dense model predicts for the answers of a batch of the samples `indices`."""

    def prepare(self, progress: Progress) -> None:  # noqa: B027  # most have nothing to do
        """Get ready, before the first step and whenever a run is resumed."""

    def measures(self) -> dict[str, Any]:
        """Return the measures for the artifact's history."""
        return {"teacher": self.mode}


class Copy(Teacher):
    """A second model beside the student."""

    mode = "copy"

    def __init__(self, model: nn.Module, view: View) -> None:
        self.model, self.view = model, view
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def target(self, batch: Batch, indices: Sequence[int]) -> FullTarget:
        seen = self.view.of(self.model, batch)
        return FullTarget(seen.logits_NV, seen.hidden_ND)
