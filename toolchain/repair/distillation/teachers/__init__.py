"""The dense model as the teacher, in three forms: a second copy, the student's own weights, its logits on disk."""

from vlmc.toolchain.repair.distillation.teachers.base import Copy, Teacher
from vlmc.toolchain.repair.distillation.teachers.cached import Cached, cache_folder
from vlmc.toolchain.repair.distillation.teachers.shared import Shared, pruned_away

__all__ = ["Cached", "Copy", "Shared", "Teacher", "cache_folder", "pruned_away"]
