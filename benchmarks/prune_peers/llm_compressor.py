"""llm-compressor's contestant: its modifiers through `oneshot` with its sequential pipeline, run in its own environment.

Its tracing takes LLaVA's vision tower for one step, and so calibrates every vision block on the dense tower. Given the tower
as a model of its own it goes block by block there too. So it is called twice: for the tower, then for the language model.
"""

import os
from typing import Any, cast

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from torch.utils.data import DataLoader

from prune_peers.job import Job, load_model, main, read_inputs, save_model

SHARED = {"sparsity": 0.5, "mask_structure": "2:4"}
VISION, LANGUAGE = "CLIPEncoderLayer", "LlamaDecoderLayer"


def modifier(method: str, block: str) -> Any:
    """Return the method's modifier for the Linear layers of every block of that class."""
    if method == "wanda":
        return WandaPruningModifier(**SHARED, targets=[block])
    return SparseGPTModifier(**SHARED, targets=[block], dampening_frac=0.01, block_size=128)


def prune(job: Job) -> None:
    """Prune the vision tower, then the language model."""
    model = load_model(job)
    inputs = [sample | {"pixel_values": sample["pixel_values"].to(model.dtype)} for sample in read_inputs(job)]
    tower = model.model.vision_tower
    tower.config._name_or_path = job.model  # oneshot looks there for a config
    for part, block, given in (
        (tower, VISION, [{"pixel_values": sample["pixel_values"]} for sample in inputs]),
        (model, LANGUAGE, inputs),
    ):
        oneshot(
            model=part,
            dataset=DataLoader(cast(Any, given), batch_size=None),
            recipe=modifier(job.method, block),
            pipeline="sequential",
            sequential_targets=[block],
            num_calibration_samples=len(given),
        )
    save_model(model, job)


if __name__ == "__main__":
    main(prune)
