"""Training: steps, learning rate, validation, early stopping, checkpoints and reports."""

from vlmc.toolchain.repair.training.assembling import Assembly
from vlmc.toolchain.repair.training.board import writer_class
from vlmc.toolchain.repair.training.checkpoints import Checkpoints
from vlmc.toolchain.repair.training.reports import measures, write_reports
from vlmc.toolchain.repair.training.trainer import Trainer

__all__ = ["Assembly", "Checkpoints", "Trainer", "measures", "write_reports", "writer_class"]
