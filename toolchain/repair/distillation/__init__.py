"""The dense model as the teacher: what it predicts for the answers' tokens, and the losses that compare the student."""

from vlmc.toolchain.repair.distillation.losses import Losses, repair_loss, task_loss
from vlmc.toolchain.repair.distillation.teachers import Cached, Copy, Shared, Teacher, cache_folder, pruned_away
from vlmc.toolchain.repair.distillation.views import View

__all__ = [
    "Cached",
    "Copy",
    "Losses",
    "Shared",
    "Teacher",
    "View",
    "cache_folder",
    "pruned_away",
    "repair_loss",
    "task_loss",
]
