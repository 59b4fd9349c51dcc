"""The options of every step, each written once: a field and its docstring make the flag, its help, the recipe's key."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Group = TypeVar("Group", bound="Settings")
PruneMethod = Literal["magnitude", "wanda", "sparsegpt", "admm"]
RepairMethod = Literal["ressa", "sparse-lora", "lora", "lora-remask", "lors", "spp", "masked-full"]
TokenPolicy = Literal["all", "text", "atv"]
Ratios = Literal["uniform", "owl", "ecoflap"]
Direction = Literal["forward", "reverse"]
Precision = Literal["fp32", "bf16", "fp16"]
Kernel = Literal["tiled", "triton"]
TeacherMode = Literal["auto", "shared", "copy", "cached"]
CacheKind = Literal["top", "sampled"]


def read_layers(given: object) -> object:
    """Read `GLOB=SPARSITY,GLOB=SPARSITY`; a mapping, as recipes have it, stays what it is."""
    if not isinstance(given, str):
        return given
    pairs = [part.rpartition("=") for part in given.split(",")]
    if not all(glob and text for glob, _, text in pairs):
        raise ValueError("give GLOB=SPARSITY, such as '*.down_proj=none', with commas between several")
    return {glob.strip(): text.strip() for glob, _, text in pairs}


class Settings(BaseModel):
    """Base of all option groups: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataSettings(Settings):
    """Which data, and how it is read."""

    data: str = "demo"
    """Data: demo, smol, a .json, .jsonl, .csv, .parquet or .tar file, a folder, or a hub id; a=0.7,b=0.3 mixes two.
    The model smol takes smol by default."""
    split: str | None = None
    """Split of the data. [default: train; for eval, test; for sweep, validation to question and train to calibrate on]"""
    columns: str | None = None
    """Columns whose names are not the usual ones, such as image=img,question=q,answer=a."""
    caption_prompt: str = "Describe the image."
    """Question that a caption answers."""
    max_bad: str = "1%"
    """Pictures that may be unreadable and are left out, a number or a share; beyond it the data is refused."""
    stream: bool = False
    """Take the samples of a hub id from a stream, shuffled in a buffer, instead of downloading all of it."""


class TargetSettings(Settings):
    """How sparse to prune."""

    target: str = "2:4"
    """Sparsity: N:M such as 2:4 or 4:8, or a percentage of zeros per row such as 50%."""
    vision: str | None = None
    """Sparsity of the vision tower alone, or none to leave it dense. [default: the target]"""
    language: str | None = None
    """Sparsity of the language model alone, or none to leave it dense. [default: the target]"""
    layers: Annotated[dict[str, str], BeforeValidator(read_layers)] = {}
    """Sparsity of single layers by a glob of their names, as GLOB=SPARSITY,GLOB=none; the first that matches decides."""


class MethodSettings(DataSettings):
    """How to choose what is pruned, and on what data."""

    method: PruneMethod = "wanda"
    """How weights are chosen: magnitude, wanda, sparsegpt or admm."""
    ratios: Ratios = "uniform"
    """How a percentage is shared out over the blocks: uniform, owl (outliers) or ecoflap (gradients from forward passes)."""
    dsnot: bool = False
    """After the mask is chosen, swap weights until each output's mean is near the dense one (magnitude and wanda)."""
    refit: bool = False
    """After the mask is chosen, refit the weights that stay to the layer's dense output (least squares)."""
    reconstruct: bool = False
    """Train the weights that stay in each pruned block towards the dense block's output."""
    reconstruct_epochs: int = Field(default=10, ge=1)
    """Passes of --reconstruct over the calibration samples."""
    tokens: TokenPolicy = "all"
    """Tokens that the language model is pruned by: all, text, or atv (text and the visual ones that a block turns most)."""
    allow_dense: bool = False
    """Leave layers dense whose inputs do not fall into the pattern's groups, instead of refusing the model."""
    calibration: int = Field(default=128, ge=1)
    """Samples to calibrate on."""
    spill: bool = False
    """Keep the calibration samples' activations on disk instead of in memory."""
    device: str | None = None
    """Device to compute on: cpu, cuda or cuda:1. [default: a CUDA GPU where there is one]"""


class PruneSettings(MethodSettings, TargetSettings):
    """How to prune."""


class TrainingSettings(DataSettings):
    """How the repair is trained."""

    samples: int | None = Field(default=None, ge=1)
    """Samples to train on, the first of the data. [default: all]"""
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
    kernel: Kernel = "tiled"
    """What computes SparseLoRA's products: tiled, by torch on any device, or triton, fused kernels for NVIDIA GPUs."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass, and run the block again there: less memory, more time."""
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
    workers: int = Field(default=0, ge=0)
    """Background processes that encode the coming batches while a step runs; the result is the same."""
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


class EvalSettings(DataSettings):
    """What to evaluate on."""

    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: all]"""


class SweepSettings(MethodSettings):
    """Which sparsities to try, and on what questions."""

    sums: str = "100,120"
    """Sums of vision's and language's sparsity in percent, separated by commas."""
    shares: str = "70:30,60:40,50:50,40:60,30:70,20:80"
    """Shares vision:language in which each sum is split, separated by commas."""
    targets: str = "2:4"
    """Sparsities to prune vision and language, vision only and language only to, separated by commas."""
    calibration_data: str | None = None
    """Another data set to calibrate on. [default: that of the questions; the demo's splits share no picture]"""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: all]"""


class DemoDataSettings(Settings):
    """Which of the demo's questions to write, or of those of smol."""

    of: Literal["demo", "smol"] = "demo"
    """Data set: demo, or smol, scenes of emoji and digits with questions in whole sentences."""
    split: Literal["train", "validation", "test"] = "test"
    """Split: train, validation or test; no handwriting occurs in two of them."""
    count: int | None = Field(default=None, ge=1)
    """Number of questions. [default: the split's usual number]"""
