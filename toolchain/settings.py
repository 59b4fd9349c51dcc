"""The options of every step, each written once: a field and its docstring make the flag, its help, the recipe's key."""

from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Group = TypeVar("Group", bound="Settings")
PruneMethod = Literal["magnitude", "wanda", "sparsegpt", "admm"]
RepairMethod = Literal["ressa", "sparse-lora", "lora", "lora-remask", "lors", "spp", "masked-full"]
TokenPolicy = Literal["all", "text", "atv"]
Direction = Literal["forward", "reverse"]
Precision = Literal["fp32", "bf16", "fp16"]
TeacherMode = Literal["auto", "shared", "copy", "cached"]
CacheKind = Literal["top", "sampled"]


class Settings(BaseModel):
    """Base of all option groups: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PruneSettings(Settings):
    """How to prune."""

    target: str = "2:4"
    """Sparsity: N:M such as 2:4 or 4:8, or a percentage of zeros per row such as 50%."""
    vision: str | None = None
    """Sparsity of the vision tower alone, or none to leave it dense. [default: the target]"""
    language: str | None = None
    """Sparsity of the language model alone, or none to leave it dense. [default: the target]"""
    method: PruneMethod = "wanda"
    """How weights are chosen: magnitude, wanda, sparsegpt or admm."""
    refit: bool = False
    """After the mask is chosen, refit the weights that stay to the layer's dense output (least squares)."""
    tokens: TokenPolicy = "all"
    """Tokens that the language model is pruned by: all, text, or atv (text and the visual ones that a block turns most)."""
    allow_dense: bool = False
    """Leave layers dense whose inputs do not fall into the pattern's groups, instead of refusing the model."""
    calibration: int = Field(default=128, ge=1)
    """Samples to calibrate on."""
    data: str = "demo"
    """Data set to calibrate on: demo, or a JSON / JSONL file of LLaVA conversations."""


class TrainingSettings(Settings):
    """How the repair is trained."""

    data: str = "demo"
    """Data set to train on: demo, or a JSON / JSONL file of LLaVA conversations."""
    steps: int = Field(default=600, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=1)
    """Samples per step, over all processes."""
    accumulate: int = Field(default=1, ge=1)
    """Passes that a process splits its samples of a step into; more take less memory and give the same gradient."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; a cosine follows. [default: 0.32 / width, 5e-3 at 64; spp 3, masked-full 0.3 times that]"""
    warm_up: int = Field(default=100, ge=0)
    """Steps in which the learning rate rises to its peak; never more than a tenth of all."""
    clip: float = Field(default=1.0, gt=0)
    """Greatest norm of a step's gradient; a longer one is shortened to it."""
    precision: Precision = "fp32"
    """Type of the matrix products in training: fp32, bf16 or fp16; what is trained is kept in fp32."""
    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapters: an update is alpha / rank times B A."""
    task_weight: float = Field(default=0.5, ge=0, le=1)
    """lambda: the share of the task loss; the rest is distillation from the dense model."""
    kl: Direction = "forward"
    """Direction of the distillation: forward (teacher to student) or reverse."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the distillation, whose loss is multiplied by its square."""
    hidden: float = Field(default=0.0, ge=0)
    """Weight of the distance to the dense model's hidden states, added to the loss; 0 leaves it out."""
    teacher: TeacherMode = "auto"
    """The dense model: shared (the student's own weights and those pruned away), copy, cached (its logits on disk), auto."""
    cache: CacheKind = "top"
    """What is kept of cached logits: top (likeliest words and the rest's sum) or sampled (words drawn, unbiased)."""
    cache_words: int = Field(default=64, ge=1)
    """Words kept for each answer token of cached logits."""
    validation: str | None = None
    """Data set to validate on. [default: the demo's validation split, where the demo is trained on]"""
    validation_count: int = Field(default=256, ge=1)
    """Samples to validate on."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validations. [default: none; 50 with --patience]"""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a new best, and keep the best. [default: never]"""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints, from which a killed run goes on."""
    checkpoint_minutes: float | None = Field(default=None, gt=0)
    """Minutes after which there is a checkpoint in any case."""
    tensorboard: str | None = None
    """Folder to write TensorBoard's event files to."""


class RepairSettings(TrainingSettings):
    """How to repair."""

    method: RepairMethod = "ressa"
    """What is trained: ressa, sparse-lora (not distilled), lora (never merged), lora-remask, lors, spp or masked-full."""


class CompressSettings(TrainingSettings, PruneSettings):
    """The whole chain: how to prune, and how to repair."""

    repair: Literal[RepairMethod, "none"] = "ressa"
    """Repair method, as in vlmc repair, or none to stop after pruning."""
    data: str = "demo"
    """Data set to calibrate and train on: demo, or a JSON / JSONL file of LLaVA conversations."""

    def of(self, group: type[Group]) -> Group:
        """Return the options of one step."""
        shared = {name: value for name, value in self.model_dump().items() if name in group.model_fields}
        return group(**shared | ({"method": self.repair} if issubclass(group, RepairSettings) else {}))


class ExportSettings(Settings):
    """How to export."""

    precision: Literal["fp32", "fp16"] | None = None
    """Type of the graph's weights. [default: fp32 for onnx, fp16 for tensorrt]"""
    gpu: str = "sm86,sm89"
    """GPU architectures to build engines for, where no GPU is at hand (TensorRT-RTX)."""


class RunSettings(Settings):
    """How to answer."""

    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer in tokens."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""


class EvalSettings(Settings):
    """What to evaluate on."""

    data: str = "demo"
    """Data set: demo, or a JSON / JSONL file of LLaVA conversations."""
    split: Literal["train", "validation", "test"] = "test"
    """Split of the demo's data: train, validation or test."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: all]"""


class DemoDataSettings(Settings):
    """Which of the demo's questions to write."""

    split: Literal["train", "validation", "test"] = "test"
    """Split: train, validation or test; no handwriting occurs in two of them."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: the split's usual number]"""
