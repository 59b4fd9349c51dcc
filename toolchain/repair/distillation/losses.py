"""The losses of repair, all of them means over answer tokens: padding, image and prompt never count.

Shapes: N answer tokens of the whole batch, V tokens of the vocabulary, D hidden size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmc.toolchain.repair.distillation.targets import Target
from vlmc.toolchain.repair.distillation.views import Seen
from vlmc.toolchain.settings import TrainingSettings


class Losses(NamedTuple):
    """`total = task_weight * task + (1 - task_weight) * kl + hidden_weight * hidden`; scalars."""

    total: Tensor
    task: Tensor
    kl: Tensor
    hidden: Tensor


def repair_loss(student: Seen, target: Target, answers_N: Tensor, options: TrainingSettings) -> Losses:
    """Return RESSA's loss, lambda L_task + (1 - lambda) D_KL with lambda = `task_weight` (arXiv 2404.02424, section 3.3).

    With `hidden`, the distance of the hidden states is added.
    """
    task = F.cross_entropy(student.logits_NV, answers_N)
    kl = target.divergence(student.logits_NV, options.kl, options.temperature)
    hidden = hidden_distance(student.hidden_ND, target.hidden_ND) if options.hidden else torch.zeros_like(task)
    total = options.task_weight * task + (1 - options.task_weight) * kl
    return Losses(total + options.hidden * hidden if options.hidden else total, task, kl, hidden)


def task_loss(student: Seen, answers_N: Tensor) -> Losses:
    """Return the task loss alone, for a method that is not distilled."""
    task = F.cross_entropy(student.logits_NV, answers_N)
    return Losses(task, task, torch.zeros_like(task), torch.zeros_like(task))


def hidden_distance(student_ND: Sequence[Tensor], teacher_ND: Sequence[Tensor]) -> Tensor:
    """Return `|h_S - h_T|^2 / |h_T|^2` as a mean over tokens and blocks: the relative error of a state.

    The distance that arXiv 2604.24380 finds best beside the task loss; it weighs blocks alike, whatever their norm.
    """
    shares = [
        ((one.float() - true.float()).square().sum(-1) / true.float().square().sum(-1).clamp_min(1e-12)).mean()
        for one, true in zip(student_ND, teacher_ND, strict=True)
    ]
    return torch.stack(shares).mean()
