"""Options of pruning."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vlmc.toolchain.settings.base import RARE, Settings
from vlmc.toolchain.settings.data import DataSettings

PruneMethod = Literal["magnitude", "wanda", "sparsegpt", "admm"]
TokenPolicy = Literal["all", "text", "atv"]
Ratios = Literal["uniform", "owl", "ecoflap"]
CalibrationPrecision = Literal["auto", "fp32", "bf16", "fp16"]


def read_layers(given: object) -> object:
    """Read `GLOB=SPARSITY,GLOB=SPARSITY`; a mapping, as recipes have it, is returned as it is."""
    if not isinstance(given, str):
        return given
    pairs = [part.rpartition("=") for part in given.split(",")]
    if not all(glob and text for glob, _, text in pairs):
        raise ValueError("give GLOB=SPARSITY, such as '*.down_proj=none', with commas between several")
    return {glob.strip(): text.strip() for glob, _, text in pairs}


class TargetSettings(Settings):
    """How sparse to prune."""

    panel = "Pruning"

    target: str = "2:4"
    """Sparsity: N:M such as 2:4 or 4:8, or a percentage of zeros per row such as 50%."""
    vision: str | None = None
    """Sparsity of the vision tower alone, or none to leave it dense. [default: the target]"""
    language: str | None = None
    """Sparsity of the language model alone, or none to leave it dense. [default: the target]"""
    layers: Annotated[dict[str, str], BeforeValidator(read_layers), RARE] = Field(default={})
    """Sparsity of single layers by a glob of their names, as GLOB=SPARSITY,GLOB=none; the first that matches decides."""


class MethodSettings(DataSettings):
    """How to choose the weights to prune, and on what data."""

    panel = "Pruning"

    method: PruneMethod = "admm"
    """How the weights to prune are chosen: magnitude, wanda, sparsegpt or admm."""
    ratios: Annotated[Ratios, RARE] = "uniform"
    """How a percentage is shared out over blocks: uniform, owl (outliers) or ecoflap (gradients from forward passes)."""
    dsnot: Annotated[bool, RARE] = False
    """Then swap kept and pruned weights until each output's mean is near the dense one (magnitude and wanda)."""
    refit: Annotated[bool, RARE] = False
    """Then refit the kept weights to the layer's dense output (least squares)."""
    reconstruct: Annotated[bool, RARE] = False
    """Train the kept weights of each pruned block towards the dense block's output."""
    reconstruct_epochs: Annotated[int, RARE] = Field(default=10, ge=1, le=100_000)
    """Passes of --reconstruct over the calibration samples."""
    tokens: Annotated[TokenPolicy, RARE] = "all"
    """Tokens that count in the language model: all, text, or atv (text, and the visual tokens that a block changes most)."""
    allow_dense: Annotated[bool, RARE] = False
    """Leave layers dense whose input size is not a multiple of the pattern's group, instead of refusing the model."""
    calibration: int = Field(default=128, ge=1, le=10_000_000)
    """Number of calibration samples."""
    spill: Annotated[bool, RARE] = False
    """Keep the calibration activations on disk instead of in memory."""
    precision: CalibrationPrecision = "auto"
    """Type that calibration runs in: fp32, bf16, fp16, or auto: the model's own if the device is fast in it."""
    device: str | None = None
    """Device to compute on: cpu, cuda or cuda:1. [default: a CUDA GPU where there is one]"""


class PruneSettings(MethodSettings, TargetSettings):
    """How to prune."""
