"""Answers right on a model's test questions by exported graphs: 2:4 packed in int8, rounded to nearest and by GPTQ.

Beside them stand the same 2:4 weights in float32, and the dense model in float32 and in ONNX Runtime's own int8 and int4
(MatMulNBits, 32 columns share a scale, activations in int8, rounded to nearest). "Activations too": --cpu-activations int8,
where the CPU has such products. All answers come from the runtime, as
`vlmc run` gives them. The graphs are traced once and packed anew for each row, by what `vlmc export` packs with. An error
is the mean over layers of the squared error of their outputs on the calibration data, as a share of the squared outputs.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pages import DOCS, fill
from report import Bar, Report, Row, arguments, at_least, command, finish, measured, prepare, report, targets, tenths
from torch import nn

from vlmc.exporters.base import Activations
from vlmc.exporters.onnx.exporter import LEVELS
from vlmc.exporters.onnx.packed import Packing, check_packed, pack_weights
from vlmc.exporters.onnx.sparsity import check_onnx, label
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.errors import CheckFailed
from vlmc.runtime.model import Model
from vlmc.toolchain import data
from vlmc.toolchain.bench.narrowing import BLOCK, narrow
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.evaluate import score
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.quantise import Quantised, quantise
from vlmc.toolchain.settings import CompressSettings, ExportSettings, RoundingSettings
from vlmc.toolchain.stages.compress import Compress
from vlmc.toolchain.stages.export import DENSE_TWIN, Export

NAMES = {"demo": "rounding", "smol": "rounding_smol"}
"""The results, by the model, which has data of its own."""
ACCURACY, BYTES, ERROR, CHANGED = (
    "accuracy",
    "bytes of the pruned weights",
    "error of the layers' outputs",
    "answers changed",
)
DENSE, SPARSE = "dense fp32", "2:4 fp32"
BITS = {"dense int8, MatMulNBits": 8, "dense int4, MatMulNBits": 4}
GROUPS = [128, 32]
ROUNDINGS: tuple[Literal["nearest", "gptq"], ...] = ("nearest", "gptq")
ACTIVATIONS: tuple[Activations, ...] = ("fp32", "int8")
QUIET = Progress(quiet=True)


@dataclass(frozen=True)
class Asked:
    """The questions for a model, and how the runtime answers them."""

    model: str
    samples: Sequence[Sample]
    threads: int

    def answers(self, root: Path, graphs: Path) -> list[str]:
        """Return a folder of graphs' answers; `root` holds the tokenizer."""
        with Model.from_graphs(root, Deployment.read(graphs / DEPLOYMENT), graphs, threads=self.threads) as model:
            return [model.generate(sample.load_images(), sample.question).text for sample in self.samples]

    def accuracy(self, answers: Sequence[str]) -> float:
        """Return the percentage that is right."""
        return 100 * score(self.samples, answers).overall


@dataclass(frozen=True)
class Packed:
    """Graphs whose 2:4 weights are packed: what these take, would take dense in bf16, and what is said of the rounding."""

    packed_bytes: int
    bf16_bytes: int
    report: dict[str, Any] | None


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--artifact", type=Path, help="what `vlmc compress --repair ressa` wrote [default: made first]")
    parser.add_argument("--model", choices=NAMES, default="demo", help="what it was compressed from [default: demo]")
    parser.add_argument("--questions", type=int, help="of the test split [default: all; 40 if --quick]")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="columns that share a scale [default: 128 32]")
    chosen = parser.parse_args(given)
    prepare(chosen)
    samples = list(data.load(chosen.model, "test", chosen.questions or (40 if chosen.quick else None)))
    asked, name = Asked(chosen.model, samples, chosen.threads or 0), NAMES[chosen.model]
    with TemporaryDirectory() as scratch:
        rows, bars = measure(_artifact(chosen, Path(scratch) / "artifact"), asked, chosen.groups, Path(scratch))
    settings = {"model": asked.model, "questions": len(samples), "groups": chosen.groups, "block": BLOCK}
    finish(report(command("rounding", given), rows, bars, settings), name, chosen)
    if not chosen.quick and chosen.out is None:
        fill(DOCS / "cpu.md", name, table(Report.read(DOCS.parent / "benchmarks" / "results" / f"{name}.json")))


def _artifact(chosen: argparse.Namespace, place: Path) -> Artifact:
    """Return a copy of the artifact, or compress the model."""
    if chosen.artifact is None:
        usual = CompressSettings(repair="ressa", data=chosen.model)
        options = replace(usual, steps=4, calibration=8) if chosen.quick else usual
        Compress(options, progress=QUIET).run(SavedModel.find(chosen.model), place)
    else:
        shutil.copytree(chosen.artifact, place)
    return Artifact.open(place)


def measure(artifact: Artifact, asked: Asked, groups: Sequence[int], scratch: Path) -> tuple[list[Row], list[Bar]]:
    """Return the rows of every form of the weights, and what is asked of int8."""
    graphs = artifact.root / "onnx"
    Export(ExportSettings(dense_twin=True), "onnx", QUIET, dense=asked.model).run(artifact)
    dense = measured(DENSE, ACCURACY, [asked.accuracy(asked.answers(artifact.root, graphs / DENSE_TWIN))], "%")
    expected = asked.answers(artifact.root, graphs)
    rows = [dense, measured(SPARSE, ACCURACY, [asked.accuracy(expected)], "%", dense)]
    for name, bits in BITS.items():
        folder = scratch / f"dense-{bits}"
        narrow(graphs / DENSE_TWIN, folder, bits)
        rows.append(measured(name, ACCURACY, [asked.accuracy(asked.answers(artifact.root, folder))], "%", dense))
    source = SavedModel("artifact", artifact.root)
    model = source.load()
    names = []
    for rounding, group in product(ROUNDINGS, groups):
        how = RoundingSettings(rounding=rounding, group=group, data=asked.model)
        quantised = rounded(source, how, scratch)
        for activations in ACTIVATIONS:
            names.append(named(rounding, group, activations))
            folder = scratch / f"{rounding}-{group}-{activations}"
            packed = pack(source, model, graphs, folder, Packing("int8", LEVELS[activations], group), quantised)
            rows += _rows(names[-1], packed, asked.answers(artifact.root, folder), expected, asked, dense)
            print(names[-1], file=sys.stderr, flush=True)
    found = {(row.name, row.metric): row.value or 0.0 for row in rows}
    kept = min(found[name, ACCURACY] for name in names)
    return rows, [at_least("2:4 int8, the worst, of 2:4 fp32's accuracy", 99, 100 * kept / found[SPARSE, ACCURACY], "%")]


def named(rounding: str, group: int, activations: Activations = "fp32") -> str:
    """Return what 2:4 in int8 is called."""
    return f"2:4 int8, {rounding}, {group} columns share a scale{', activations too' * (activations == 'int8')}"


def rounded(source: SavedModel, how: RoundingSettings, scratch: Path) -> Quantised | None:
    """Return the pruned layers' weights rounded on calibration data; None where they are rounded to nearest."""
    if how.rounding == "nearest":
        return None
    assert source.artifact is not None
    samples = data.load(how, "train", how.calibration, check=True)
    with TemporaryDirectory(dir=scratch) as place:
        return quantise(source, source.artifact.manifest.layers, how, samples, Path(place), QUIET)


def pack(
    source: SavedModel, model: nn.Module, graphs: Path, folder: Path, how: Packing, quantised: Quantised | None
) -> Packed:
    """Write an artifact's graphs with its 2:4 weights packed in int8, and prove their pattern.

    Raises:
        CheckFailed: a weight is not what rounding made of it, or breaks its pattern.
    """
    shutil.copytree(graphs, folder, ignore=shutil.ignore_patterns(DENSE_TWIN))
    assert source.artifact is not None
    layers, sizes = source.artifact.manifest.layers, [0, 0]
    for spec in deploy(source, model, layers, quantised.layers if quantised else {}).specs:
        path = folder / f"{spec.name}.onnx"
        packing = replace(how, rounded=spec.rounded)
        made = pack_weights(path, spec.sparse, packing)
        weights = {layer: spec.module.get_parameter(f"{layer}.weight").detach().numpy() for layer in made.layers}
        check_packed(path, weights.items(), packing)
        label(path, spec.sparse)
        broken = [layer.layer for layer in check_onnx(path) if layer.violation is not None] if spec.sparse else []
        if broken:
            raise CheckFailed(f"{path.name}: {broken[0]} lost its pattern")
        sizes = [sizes[0] + made.packed_bytes, sizes[1] + made.bf16_bytes]
    return Packed(sizes[0], sizes[1], quantised.report if quantised else None)


def _rows(name: str, packed: Packed, answers: list[str], expected: list[str], asked: Asked, dense: Row) -> list[Row]:
    rows = [measured(name, ACCURACY, [asked.accuracy(answers)], "%", dense)]
    changed = sum(one != other for one, other in zip(answers, expected, strict=True))
    rows.append(Row(name, SPARSE, CHANGED, changed, "", None, None))
    ratio = round(packed.packed_bytes / packed.bf16_bytes, 4)
    rows.append(Row(name, "dense bf16", BYTES, packed.packed_bytes, "bytes", ratio, None))
    if packed.report:
        means = packed.report["mean"]
        ratio = round(means["error"] / means["nearest"], 4)
        rows.append(Row(name, "rounded to nearest", ERROR, float(f"{means['error']:.3g}"), "", ratio, None))
    return rows


def table(found: Report) -> str:
    """Return the page's part on int8."""
    lines = ["| weights | right answers | of dense | answers changed | of dense bf16's bytes | error of outputs |"]
    lines.append("|---|" + "---:|" * 5)
    names = list(dict.fromkeys(row.name for row in found.rows))
    for name in names:
        right, changed, size, error = (found.find(name, metric) for metric in (ACCURACY, CHANGED, BYTES, ERROR))
        assert right is not None
        assert right.value is not None
        share = "" if right.ratio is None else f"{tenths(100 * right.ratio)} %"
        ends = ["" if changed is None else f"{changed.value:g}", "" if size is None else f"{size.ratio:.3f}"]
        ends.append("" if error is None else f"{error.value:.2g} ({error.ratio:.2f} of nearest's)")
        lines.append(f"| {name} | {tenths(right.value)} % | {share} | {' | '.join(ends)} |")
    asked, model = found.settings["questions"], found.settings["model"]
    head = f"Right answers to {asked:,} test questions by the exported graphs of `{model}`."
    origin = f"Measured on {found.machine}, {found.date}: `{found.command}`."
    return "\n\n".join([head, "\n".join(lines), targets(found), origin])


if __name__ == "__main__":
    main(sys.argv[1:])
