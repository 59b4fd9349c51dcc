"""Options of eval, sweep and bench, and of samples that are written as files."""

from typing import Literal

from pydantic import Field

from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.data import DataSettings
from vlmc.toolchain.settings.prune import MethodSettings, PruneMethod

Metric = Literal["exact", "vqa", "cider", "anls"]
"""How answers are scored."""


class EvalSettings(DataSettings):
    """What to evaluate on, and how."""

    panel = "Evaluation"

    count: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of questions. [default: all]"""
    batch: int = Field(default=64, ge=1, le=1_000_000)
    """Questions to answer at once; a smaller batch takes less memory and gives the same answers."""
    device: str | None = None
    """Device to compute on: cpu, cuda or cuda:1. [default: a CUDA GPU if there is one]"""
    metric: Metric = "exact"
    """Score: exact match, VQA accuracy (vqa), cider for captions, anls for text in documents (docs/benchmarks.md)."""
    examples: int | None = Field(default=None, ge=0, le=32)
    """Questions for the report that dense and compressed answer differently, with pictures. [default: 8; own data: 0]"""


class SweepSettings(MethodSettings):
    """Which sparsities to try, and on which questions."""

    panel = "Study"

    method: PruneMethod = "wanda"
    """How the weights to prune are chosen, as in prune; wanda is the quickest with data, and a sweep prunes many times."""
    sums: str = "100,120"
    """Sums of the vision and language sparsities in percent, separated by commas."""
    shares: str = "70:30,60:40,50:50,40:60,30:70,20:80"
    """Ratios vision:language to split each sum by, separated by commas."""
    targets: str = "2:4"
    """Sparsities to prune both towers, vision only and language only to, separated by commas."""
    calibration_data: str | None = None
    """Data set to calibrate on. [default: the questions' own; the demo's splits share no image]"""
    count: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of questions. [default: all]"""


class WriteSettings(Settings):
    """Which samples to write."""

    split: str = "test"
    """Split: train, validation or test."""
    count: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of questions. [default: the split's usual number]"""


class BenchSettings(Settings):
    """What to time, and how often."""

    engine: Literal["onnx", "torch"] = "onnx"
    """What runs the models: ONNX Runtime, or torch with dense products."""
    rounds: int = Field(default=5, ge=1, le=1000)
    """Rounds in which everyone is loaded and answers, one after the other."""
    new_tokens: int = Field(default=32, ge=2, le=100_000)
    """Tokens of an answer."""
    packed: str = "bf16,int8,w8a8"
    """Types in which 2:4 weights are packed for the CPU kernels, a row for each; w8a8: activations in int8 too."""
    nbits: str = "8,4"
    """Bits of ONNX Runtime's own dense products (MatMulNBits), a row for each: 8, 4; empty: none."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of ONNX Runtime; 0: one for each core."""
    device: str | None = None
    """Device of torch: cpu, cuda or cuda:1. [default: a CUDA GPU if there is one]"""
