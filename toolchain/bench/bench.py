"""bench: build every contestant from an artifact, time them in turns, and say what was found."""

import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any, cast

from torch import nn

from vlmc import exporters
from vlmc.exporters.base import Options
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.deployment import CacheLayout
from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.native import instruction_sets
from vlmc.runtime.kernels.packing import ValueType
from vlmc.runtime.kernels.speed import DEFAULT_THREADS, TYPES
from vlmc.toolchain.bench.engines import in_bits, in_onnx, in_torch
from vlmc.toolchain.bench.latency import DENSE, MERGED, UNMERGED, have_same_operators, no_lora_latency
from vlmc.toolchain.bench.memory import Memory, memory_of
from vlmc.toolchain.bench.operators import beside_products
from vlmc.toolchain.bench.predicting import TOO_SMALL, Product, is_predicted, packed_seconds
from vlmc.toolchain.bench.predicting import products as products_of
from vlmc.toolchain.bench.timing import DECODE, PHASES, Contestant, in_turns
from vlmc.toolchain.deploy.deployed import Deployed, deploy
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.deploy.twins import leave_adapters_apart, rank_of
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.machine.versions import versions
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import BenchSettings

PLAIN = Options()
AS_EXPORTED = cast(CacheLayout, exporters.BACKENDS["onnx"].options["cache"])
NBITS = ("8", "4")
W8A8 = "w8a8"
FORMS: dict[str, Options] = {kind: Options(cpu_sparse=kind) for kind in TYPES} | {
    W8A8: Options(cpu_sparse="int8", cpu_activations="int8")
}
"""How 2:4 weights may be packed: in a type, and in int8 with activations in int8 too, as MatMulNBits has them."""


@dataclass(frozen=True)
class Bench:
    """What to measure, and how; `dense` is the artifact's dense twin."""

    artifact: Artifact
    dense: SavedModel
    options: BenchSettings
    progress: Progress

    def run(self) -> dict[str, Any]:
        """Return times, ratios, bytes and memory of every contestant.

        Raises:
            InputError: the artifact has an adapter that is not merged, or vlmc cannot export such a model.
            CheckFailed: a graph differs from its model.
        """
        if self.artifact.manifest.state == "adapted":
            raise InputError(f"{self.artifact.root} has an adapter that is not merged: run vlmc merge first")
        forms_of(self.options.packed)
        bits_of(self.options.nbits)
        with tempfile.TemporaryDirectory(prefix="vlmc-bench-") as place:
            folder, found, memory = Path(place), {}, {}
            products: list[Product] = []
            probes(1)[0].load_images()[0].save(folder / "probe.png")
            everyone = 3 + len(self._forms()) + len(self._bits())
            with self.progress.task("bench", everyone + self.options.rounds) as task:
                for name, contestant in self._contestants(folder, products):
                    found[name] = contestant
                    memory[name] = self._memory(folder, name)
                    task.advance(name)
                rounds, packed = [], []
                for number, one in enumerate(in_turns(found, probes(1)[0], self.options.new_tokens, self.options.rounds), 1):
                    rounds.append(one)
                    packed.append(self._packed_seconds(products))
                    task.advance(f"round {number}")
            foretold = self._foretold(rounds, packed, folder / DENSE, found[DENSE])
            return self._said(found, memory, rounds, folder) | foretold

    def _contestants(self, folder: Path, products: list[Product]) -> Iterator[tuple[str, Contestant]]:
        """Build one after the other, so that one model is loaded in torch at a time, but where torch runs them.

        `products` is filled with those of the sparse model's decoder.
        """
        yield from self._dense(folder)
        sparse = SavedModel(str(self.artifact.root), self.artifact.root)
        model = sparse.load()
        yield MERGED, self._build(folder, MERGED, sparse, model)
        products += products_of(self._described(sparse, model), model) if self._forms() else []
        for form in self._forms():
            yield _packed(form), self._build(folder, _packed(form), sparse, model, FORMS[form])
        if self.options.engine == "torch":
            model = sparse.load()
        leave_adapters_apart(model, self.artifact.manifest.layers, rank_of(self.artifact.manifest))
        yield UNMERGED, self._build(folder, UNMERGED, sparse, model)

    def _dense(self, folder: Path) -> Iterator[tuple[str, Contestant]]:
        """Build the dense twin, and the same in ONNX Runtime's own few bits."""
        model = self.dense.load()
        yield DENSE, self._build(folder, DENSE, self.dense, model)
        for bits in self._bits():
            name, described = f"dense, MatMulNBits {bits}", self._described(self.dense, model)
            yield name, in_bits(self.dense.folder, described, folder / DENSE, folder / name, bits, self.options.threads)

    def _build(self, folder: Path, name: str, saved: SavedModel, model: nn.Module, options: Options = PLAIN) -> Contestant:
        described = self._described(saved, model)
        if self.options.engine == "torch":
            return in_torch(saved.folder, described, choose_device(self.options.device))
        return in_onnx(saved.folder, described, folder / name, options, self.options.threads)

    def _described(self, saved: SavedModel, model: nn.Module) -> Deployed:
        """Describe a model's graphs as export does, with no token that ends an answer: all answers have the same length."""
        layers = self.artifact.manifest.layers if saved.folder == self.artifact.root else {}
        cache = AS_EXPORTED if self.options.engine == "onnx" else "concatenated"
        deployed = deploy(saved, model, layers, cache=cache)
        return replace(deployed, deployment=deployed.deployment.model_copy(update={"stop_ids": ()}))

    def _forms(self) -> list[str]:
        """Return how to pack 2:4 weights: in no way where torch runs, or nothing can be packed."""
        two_four = any(layer.pattern == "2:4" for layer in self.artifact.manifest.layers.values())
        usable = self.options.engine == "onnx" and two_four and instruction_sets()
        return forms_of(self.options.packed) if usable else []

    def _bits(self) -> list[int]:
        return bits_of(self.options.nbits) if self.options.engine == "onnx" else []

    def _memory(self, folder: Path, name: str) -> Memory | None:
        if self.options.engine == "torch":
            return None
        question, image = probes(1)[0].question, folder / "probe.png"
        return memory_of(self.artifact.root, folder / name, image, question, self.options.new_tokens, self.options.threads)

    def _packed_seconds(self, products: list[Product]) -> dict[ValueType, float]:
        """Return the seconds of a token's products in each packed type, if anything is to be predicted."""
        threads = self.options.threads or DEFAULT_THREADS
        return {kind: packed_seconds(kind, products, threads) for kind in self._types()} if is_predicted(products) else {}

    def _types(self) -> list[ValueType]:
        """Return the types whose speed is predicted."""
        return [kind for kind in TYPES if kind in self._forms()]

    def _foretold(
        self, rounds: list[dict[str, Any]], packed: list[dict[ValueType, float]], graphs: Path, twin: Contestant
    ) -> dict[str, Any]:
        """Return how many times as fast as dense each packed form was predicted to decode, with the measured over it.

        Both are medians of the rounds; each has timed the packed products by themselves.
        """
        if not any(packed):
            return {"predicted": {}, "why_not_predicted": TOO_SMALL if self._types() else None}
        with twin.opened() as opened:
            opened.answer(probes(1)[0], 2)
        decoder = graphs / f"{opened.model.deployment.graphs.decoder}.onnx"
        rest = beside_products(decoder, opened.decoder.feeds, self.options.threads)
        rows = {}
        for kind in self._types():
            name = _packed(kind)
            gains = [one[DENSE][DECODE] / (rest + seconds[kind]) for one, seconds in zip(rounds, packed, strict=True)]
            measured = [one[DENSE][DECODE] / one[name][DECODE] for one in rounds]
            rows[name] = {"gain": median(gains), "measured_of_it": median(map(truediv, measured, gains))}
        return {"predicted": rows, "why_not_predicted": None}

    def _said(
        self,
        found: Mapping[str, Contestant],
        memory: Mapping[str, Memory | None],
        rounds: list[dict[str, Any]],
        folder: Path,
    ) -> dict[str, Any]:
        rows = {
            name: {
                "bytes": found[name].nbytes,
                "memory": asdict(held) if (held := memory[name]) else None,
                "seconds": {phase: summary([one[name][phase] for one in rounds]) for phase in PHASES},
                "of_dense": {phase: summary([one[DENSE][phase] / one[name][phase] for one in rounds]) for phase in PHASES},
            }
            for name in found
        }
        settings = self.options.model_dump()
        sets = instruction_sets()
        machine = f"{platform.system()} {platform.machine()}, {sets[0] if sets else 'no kernels'}"
        when = f"{datetime.now(UTC):%Y-%m-%d}"
        about = {"artifact": str(self.artifact.root), "machine": machine, "date": when, "versions": versions()}
        same = have_same_operators(folder / DENSE, folder / MERGED) if self.options.engine == "onnx" else None
        return about | settings | {"rows": rows, "no_lora_latency": no_lora_latency(rows, same=same)}


def forms_of(text: str) -> list[str]:
    """Return the keys of `FORMS` that are named, separated by commas.

    Raises:
        InputError: weights are not packed so.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMS:
            raise InputError(f"--packed {name}: give {', '.join(FORMS)}, or several of them separated by commas")
    return [form for form in FORMS if form in names]


def bits_of(text: str) -> list[int]:
    """Return the numbers of bits that are named, separated by commas.

    Raises:
        InputError: ONNX Runtime has no such products.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NBITS:
            raise InputError(f"--nbits {name}: give {', '.join(NBITS)}, or both separated by a comma")
    return [int(name) for name in NBITS if name in names]


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the spread, from the least to the greatest."""
    return {"median": median(values), "spread": max(values) - min(values)}


def _packed(form: str) -> str:
    return f"sparse, packed {form}"
