"""The contestants, the models that they prune, and the processes that they run in."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prune_peers.environment import Missing, interpreter
from prune_peers.job import Job, Taken
from prune_peers.material import Size, encoded, write_inputs, write_wide
from prune_peers.words import (
    ADMM,
    ADMM_REFIT,
    DEMO,
    SPARSEGPT,
    SPARSEGPT_BRAIN,
    SPARSEGPT_FLOAT,
    TEXTBOOK_SPARSEGPT,
    TEXTBOOK_WANDA,
    THEIR_SPARSEGPT,
    THEIR_SPARSEGPT_STORED,
    THEIR_WANDA,
    THEIR_WANDA_STORED,
    WANDA,
    WANDA_BRAIN,
    WANDA_FLOAT,
    WIDE,
)
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.models.saved import SavedModel

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Contestant:
    """A script that prunes, its method, and whom its time and memory are set beside."""

    name: str
    script: str
    method: str
    beside: str | None = None
    refit: bool = False
    dtype: str = "float32"  # a peer's by torch's name, vlmc's as its --precision


CONTESTANTS = [
    Contestant(THEIR_WANDA, "llm_compressor", "wanda"),
    Contestant(THEIR_SPARSEGPT, "llm_compressor", "sparsegpt"),
    Contestant(WANDA, "ours", "wanda", THEIR_WANDA, dtype="auto"),
    Contestant(SPARSEGPT, "ours", "sparsegpt", THEIR_SPARSEGPT, dtype="auto"),
    Contestant(ADMM, "ours", "admm", THEIR_SPARSEGPT, dtype="auto"),
    Contestant(ADMM_REFIT, "ours", "admm", THEIR_SPARSEGPT, refit=True, dtype="auto"),
    Contestant(TEXTBOOK_WANDA, "textbook", "wanda", THEIR_WANDA),
    Contestant(TEXTBOOK_SPARSEGPT, "textbook", "sparsegpt", THEIR_SPARSEGPT),
]
AS_STORED = [
    Contestant(THEIR_WANDA_STORED, "llm_compressor", "wanda", THEIR_WANDA, dtype="bfloat16"),
    Contestant(THEIR_SPARSEGPT_STORED, "llm_compressor", "sparsegpt", THEIR_SPARSEGPT, dtype="bfloat16"),
    Contestant(WANDA_FLOAT, "ours", "wanda", THEIR_WANDA, dtype="fp32"),
    Contestant(SPARSEGPT_FLOAT, "ours", "sparsegpt", THEIR_SPARSEGPT, dtype="fp32"),
]
"""On the wide model: llm-compressor in the model's own type, vlmc in float32 where its own choice may be another."""
NARROW = [
    Contestant(WANDA_BRAIN, "ours", "wanda", dtype="bf16"),
    Contestant(SPARSEGPT_BRAIN, "ours", "sparsegpt", dtype="bf16"),
]
"""On the demo, which is stored in float16: vlmc in bfloat16."""


@dataclass(frozen=True)
class Work:
    """How much is done: calibration and held-out samples of each model, questions, repeats on the wide model, its size."""

    calibration: Mapping[str, int]
    held_out: Mapping[str, int]
    questions: int
    repeats: int
    size: Size
    together: bool  # one process for all jobs of a script, which spares the imports

    @classmethod
    def of(cls, *, quick: bool, repeats: int) -> "Work":
        """Return the full measure, or as little as leaves every row in place."""
        if quick:
            return cls({DEMO: 8, WIDE: 4}, {DEMO: 8, WIDE: 2}, 20, 1, Size(128, 256, 1, 2, 16), True)
        return cls({DEMO: 128, WIDE: 8}, {DEMO: 128, WIDE: 4}, 1000, repeats, Size(512, 1408, 6, 12, 4), False)


Times = dict[str, list[Taken]]
"""What each contestant took, round by round; empty where it could not run."""


Entry = tuple[str, Contestant]
"""A model's name and who prunes it."""


class Arena:
    """The models, the calibration samples, and the processes that contestants run in."""

    def __init__(self, work: Work, scratch: Path, threads: int, peer_env: Path, *, install: bool) -> None:
        self.work, self.scratch, self.threads, self.missing = work, scratch, threads, ""
        self.pythons = dict.fromkeys(("ours", "textbook"), Path(sys.executable))
        try:
            self.pythons["llm_compressor"] = interpreter(peer_env, make=install)
        except Missing as reason:
            self.missing = str(reason)
        self.models = {DEMO: SavedModel.find("demo")}
        write_wide(self.models[DEMO], work.size, scratch / WIDE)
        self.models[WIDE] = SavedModel.find(str(scratch / WIDE))
        for name, model in self.models.items():
            write_inputs(encoded(model, "train", work.calibration[name]), self.inputs(name))

    def inputs(self, model: str) -> Path:
        """Return the file of a model's calibration samples."""
        return self.scratch / f"{model}.inputs.safetensors"

    def made(self, model: str, contestant: str) -> Path:
        """Return the folder of what a contestant made."""
        return self.scratch / "made" / f"{model}, {contestant}"

    def precision(self, model: str, contestant: str) -> str:
        """Return what one of vlmc's contestants let the samples run in."""
        return str(Artifact.open(self.made(model, contestant)).manifest.history[0].measures["precision"])

    def compete(self) -> dict[str, Times]:
        """Let the contestants prune the demo once, and take turns at the wide model; ADMM, which has no rival, goes once."""
        entered = [(DEMO, one) for one in CONTESTANTS + NARROW] + [(WIDE, one) for one in CONTESTANTS + AS_STORED]
        times: dict[str, Times] = {DEMO: {}, WIDE: {}}
        for model, one in entered:
            times[model][one.name] = []
        able = [entry for entry in entered if entry[1].script in self.pythons]
        for number in range(self.work.repeats):
            now = able if number == 0 else [(model, one) for model, one in able if model == WIDE and one.method != "admm"]
            for group in self._groups(now):
                for (model, one), taken in zip(group, self._process(group), strict=True):
                    times[model][one.name].append(taken)
                    told = f"{taken.seconds:.1f} s, busy {taken.busy:.1f} s, {(taken.peak - taken.before) / 2**20:.0f} MiB"
                    print(f"{model}, round {number + 1}, {one.name}: {told}", file=sys.stderr, flush=True)
        return times

    def _groups(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        """Return what shares a process: nothing, or in a quick run all of one script."""
        if not self.work.together:
            return [[entry] for entry in entries]
        return [[entry for entry in entries if entry[1].script == script] for script in self.pythons]

    def _process(self, group: Sequence[Entry]) -> list[Taken]:
        result, file, (model, first) = self.scratch / "result.json", self.scratch / "jobs.json", group[0]
        jobs = [self._jobs(model, one) for model, one in group]
        content = {"threads": self.threads, "result": str(result), "jobs": jobs}
        file.write_text(json.dumps(content), encoding="utf-8")
        line = [str(self.pythons[first.script]), "-m", f"prune_peers.{first.script}", str(file)]
        done = subprocess.run(line, cwd=FOLDER, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{first.name} on {model} failed:\n{done.stderr[-3000:]}")
        return [Taken(**one) for one in json.loads(result.read_text(encoding="utf-8"))]

    def _jobs(self, model: str, one: Contestant) -> list[dict[str, Any] | None]:
        """Return a small job to warm up, none where the process has just done the demo's, and the job that counts."""
        few = min(2, self.work.calibration[DEMO])
        warm = self.work.together and model == WIDE and one in CONTESTANTS
        small = None if warm else self._job(DEMO, one, few, f"{one.name}, warm-up")
        return [small, self._job(model, one, self.work.calibration[model], one.name)]

    def _job(self, model: str, one: Contestant, samples: int, out: str) -> dict[str, Any]:
        folders = str(self.models[model].folder), str(self.inputs(model)), samples, str(self.made(model, out))
        return asdict(Job(one.method, *folders, refit=one.refit, dtype=one.dtype))

    def _environment(self) -> dict[str, str]:
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

    def peer_versions(self) -> dict[str, str]:
        """Return the releases in llm-compressor's environment; none where it is missing."""
        if self.missing:
            return {}
        names = ("llmcompressor", "compressed-tensors", "transformers", "torch")
        code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
        line = [str(self.pythons["llm_compressor"]), "-c", code]
        found: dict[str, str] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        return found
