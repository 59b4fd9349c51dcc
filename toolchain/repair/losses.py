"""The losses of repair, all of them means over answer tokens: padding, picture and prompt never count.

Shapes: N answer tokens of the whole batch, V words of the vocabulary.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from vlmc.toolchain.settings import Direction


class Losses(NamedTuple):
    """`total = task_weight * task + (1 - task_weight) * kl`; scalars."""

    total: Tensor
    task: Tensor
    kl: Tensor


def ressa_loss(
    student_NV: Tensor, teacher_NV: Tensor, answers_N: Tensor, task_weight: float, direction: Direction
) -> Losses:
    """Return RESSA's loss, lambda L_task + (1 - lambda) D_KL, lambda being `task_weight` (arXiv 2404.02424, section 3.3)."""
    task = F.cross_entropy(student_NV, answers_N)
    kl = divergence(student_NV, teacher_NV, direction)
    return Losses(task_weight * task + (1 - task_weight) * kl, task, kl)


def divergence(student_NV: Tensor, teacher_NV: Tensor, direction: Direction) -> Tensor:
    """Return the mean over tokens of KL(teacher || student), `forward`, or of KL(student || teacher), `reverse`."""
    student, teacher = F.log_softmax(student_NV, -1), F.log_softmax(teacher_NV, -1)
    true, guess = (teacher, student) if direction == "forward" else (student, teacher)
    return F.kl_div(guess, true, log_target=True, reduction="batchmean")
