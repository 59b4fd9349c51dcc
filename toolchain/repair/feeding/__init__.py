"""Feeding: which samples a run is trained and validated on, in which batches, encoded ahead of the steps."""

from vlmc.toolchain.repair.feeding.batches import Batch, Batches, answer_logits, find_answers, split
from vlmc.toolchain.repair.feeding.prefetch import Prefetch, own_indices
from vlmc.toolchain.repair.feeding.training_data import TrainingData

__all__ = [
    "Batch",
    "Batches",
    "Prefetch",
    "TrainingData",
    "answer_logits",
    "find_answers",
    "own_indices",
    "split",
]
