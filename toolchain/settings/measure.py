"""Options of eval and sweep, and of samples that are written as files."""

from pydantic import Field

from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.data import DataSettings
from vlmc.toolchain.settings.prune import MethodSettings


class EvalSettings(DataSettings):
    """What to evaluate on, and how."""

    panel = "Evaluation"

    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: all]"""
    batch: int = Field(default=64, ge=1)
    """Questions to answer at once; a smaller batch takes less memory and gives the same answers."""
    device: str | None = None
    """Device to compute on: cpu, cuda or cuda:1. [default: a CUDA GPU if there is one]"""


class SweepSettings(MethodSettings):
    """Which sparsities to try, and on which questions."""

    panel = "Study"

    sums: str = "100,120"
    """Sums of the vision and language sparsities in percent, separated by commas."""
    shares: str = "70:30,60:40,50:50,40:60,30:70,20:80"
    """Ratios vision:language to split each sum by, separated by commas."""
    targets: str = "2:4"
    """Sparsities to prune both towers, vision only and language only to, separated by commas."""
    calibration_data: str | None = None
    """Data set to calibrate on. [default: the questions' own; the demo's splits share no image]"""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: all]"""


class WriteSettings(Settings):
    """Which samples to write."""

    split: str = "test"
    """Split: train, validation or test."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: the split's usual number]"""
