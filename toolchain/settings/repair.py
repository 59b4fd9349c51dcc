"""Options of repair."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vlmc.toolchain.settings.base import RARE
from vlmc.toolchain.settings.data import DataSettings

RepairMethod = Literal["ressa", "sparse-lora", "lora", "lora-remask", "lors", "spp", "masked-full"]
Direction = Literal["forward", "reverse"]
Precision = Literal["fp32", "bf16", "fp16"]
Kernel = Literal["tiled", "triton"]
TeacherMode = Literal["auto", "shared", "copy", "cached"]
CacheKind = Literal["top", "sampled"]


def read_part(given: object) -> object:
    """Check a share of the data such as `5%`, or a number of samples."""
    text = str(given).strip()
    if not re.fullmatch(r"\d+|\d{1,2}(\.\d+)?%", text):
        raise ValueError("give a share below 100 %, such as 5%, a number of samples, or 0 to hold nothing out")
    return text


class TrainingSettings(DataSettings):
    """How the repair is trained."""

    panel = "Repair"

    samples: int | None = Field(default=None, ge=1)
    """Samples to train on, the first of the data. [default: all]"""
    steps: int = Field(default=600, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=1)
    """Samples per step, over all processes."""
    accumulate: Annotated[int, RARE] = Field(default=1, ge=1)
    """Passes that a process splits its share of a batch into; more take less memory, with the same gradient."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; a cosine follows. [default: 0.32 / width, 5e-3 at 64; spp 3, masked-full 0.3 times that]"""
    warm_up: Annotated[int, RARE] = Field(default=100, ge=0)
    """Steps in which the learning rate rises to its peak; at most a tenth of all steps."""
    clip: Annotated[float, RARE] = Field(default=1.0, gt=0)
    """Greatest norm of a step's gradient; a longer one is clipped to it."""
    precision: Precision = "fp32"
    """Type of the matrix products in training: fp32, bf16 or fp16; the adapters are kept in fp32."""
    kernel: Annotated[Kernel, RARE] = "tiled"
    """What computes SparseLoRA's products: tiled, by torch on any device, or triton, fused kernels for NVIDIA GPUs."""
    gradient_checkpointing: Annotated[bool, RARE] = False
    """Keep only the input of each block and recompute the block in the backward pass: less memory, more time."""
    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapters: an update is alpha / rank times B A."""
    task_weight: Annotated[float, RARE] = Field(default=0.5, ge=0, le=1)
    """lambda: the share of the task loss; the rest is distillation from the dense model."""
    kl: Annotated[Direction, RARE] = "forward"
    """Direction of the distillation: forward (teacher to student) or reverse."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the distillation, whose loss is multiplied by its square."""
    hidden: Annotated[float, RARE] = Field(default=0.0, ge=0)
    """Weight of the distance to the dense model's hidden states in the loss; 0 leaves it out."""
    teacher: TeacherMode = "auto"
    """The dense model: shared (the student's own weights and those pruned away), copy, cached (its logits on disk), auto."""
    cache: Annotated[CacheKind, RARE] = "top"
    """What is kept of cached logits: top (likeliest tokens and the sum of the rest) or sampled (drawn tokens, unbiased)."""
    cache_tokens: Annotated[int, RARE] = Field(default=64, ge=1)
    """Tokens of the vocabulary kept for each answer token of cached logits."""
    validation: str | None = None
    """Data set to validate on. [default: what --hold-out takes; for the demo, its validation split]"""
    validation_count: Annotated[int, RARE] = Field(default=256, ge=1)
    """Samples to validate on, of --validation or the demo."""
    hold_out: Annotated[str, BeforeValidator(read_part)] = "5%"
    """Part of --data to validate on and not to train on: a share (at most 500 samples), a number or 0; not of the demo."""
    pruned_questions: Annotated[int, RARE] = Field(default=128, ge=0)
    """Validation questions that the pruned model answers before training, for the history; 0 asks none."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validations. [default: 50; none on the demo without --patience]"""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without a new best, and keep the best. [default: never]"""
    checkpoint_every: Annotated[int, RARE] = Field(default=100, ge=1)
    """Steps between checkpoints, from which an interrupted run resumes."""
    checkpoint_minutes: Annotated[float | None, RARE] = Field(default=None, gt=0)
    """Write a checkpoint at least every so many minutes."""
    sample_cache: Annotated[int, RARE] = Field(default=100, ge=0)
    """Memory in MB for encoded samples that are needed again, such as in the next epoch."""
    workers: Annotated[int, RARE] = Field(default=0, ge=0)
    """Threads that encode the next batches while a step runs; the result does not change."""
    tensorboard: Annotated[str | None, RARE] = None
    """Folder to write TensorBoard's event files to."""

    @property
    def validation_interval(self) -> int:
        """Steps between validations."""
        return self.validate_every or 50


class RepairSettings(TrainingSettings):
    """How to repair."""

    panel = "Repair"

    method: RepairMethod = "ressa"
    """What is trained: ressa, sparse-lora (not distilled), lora (never merged), lora-remask, lors, spp or masked-full."""
