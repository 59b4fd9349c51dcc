"""The demo: scenes of handwritten digits, questions about them, and two small models trained on both."""

from vlmc.toolchain.demo.checkpoints import NAMES, locate
from vlmc.toolchain.demo.dataset import samples, write

__all__ = ["NAMES", "locate", "samples", "write"]
