"""The paper's split study: a fixed sum of sparsity in different shares, and pruning both towers or one (docs/sweep.md)."""

from vlmc.toolchain.study.plan import Plan, Variant
from vlmc.toolchain.study.record import Record, Row
from vlmc.toolchain.study.split import SplitStudy

__all__ = ["Plan", "Record", "Row", "SplitStudy", "Variant"]
