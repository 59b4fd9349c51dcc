"""A contestant's process: reads its jobs, does each once in little to warm up, then by the clock, and writes what it took.

Needs torch and transformers only, for it also runs in llm-compressor's environment.
"""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

INPUTS = ("input_ids", "attention_mask", "pixel_values")


@dataclass(frozen=True)
class Job:
    """One model to prune to 2:4: from the model's folder, on the calibration file's samples, into the folder `out`."""

    method: str
    model: str
    inputs: str
    samples: int
    out: str
    refit: bool = False
    dtype: str = "float32"  # what is computed in; the result is always stored in the model's own type


@dataclass(frozen=True)
class Taken:
    """What a job took: seconds by the clock and of the processor, and resident bytes before it and at its peak."""

    seconds: float
    busy: float
    before: int
    peak: int


Contestant = Callable[[Job], None]
"""Loads the model, prunes it and saves the result."""


def main(contestant: Contestant) -> None:
    """Do the jobs of the file named on the command line."""
    content = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(content["threads"])
    taken = []
    for warm_up, job in content["jobs"]:
        if warm_up is not None:
            contestant(Job(**warm_up))
        taken.append(asdict(measured(partial(contestant, Job(**job)))))
    Path(content["result"]).write_text(json.dumps(taken), encoding="utf-8")


def measured(work: Callable[[], None]) -> Taken:
    """Do the work once; memory that earlier work has left free goes back to the system first, where libc can do that."""
    gc.collect()
    libc: Any = ctypes.CDLL(None)
    if sys.platform == "linux":
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak, VmHWM, to what is resident now
    before, began, busy = resident("VmRSS"), time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - began, time.process_time() - busy, before, resident("VmHWM"))


def resident(field: str) -> int:
    """Return one of the kernel's figures about this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def read_inputs(job: Job) -> list[dict[str, Tensor]]:
    """Return the model's inputs for every calibration sample, a batch of one each."""
    tensors = load_file(job.inputs)
    return [{name: tensors[f"{number:05d}.{name}"] for name in INPUTS} for number in range(job.samples)]


def load_model(job: Job) -> Any:
    """Return the model as a peer loads it."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(job.model, dtype=getattr(torch, job.dtype), local_files_only=True)


def save_model(model: Any, job: Job) -> None:
    """Write the weights in the type of the model that they came from."""
    stored = json.loads((Path(job.model) / "config.json").read_text(encoding="utf-8"))["dtype"]
    model.to(getattr(torch, stored)).save_pretrained(job.out)
