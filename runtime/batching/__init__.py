"""Batching: many questions at once on one model, each joining and leaving the running batch between two tokens."""

from vlmc.runtime.batching.batcher import Batcher
from vlmc.runtime.batching.counts import BatcherState
from vlmc.runtime.batching.pending import Pending

__all__ = ["Batcher", "BatcherState", "Pending"]
