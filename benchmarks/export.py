"""Export of every family that vlmc knows, on pico models: time, error against torch, greedy agreement, bytes, engines.

Each family's model has its own processor and one or a few blocks in each part. It is pruned to 2:4 and learns, by heart and
with the pattern kept, to answer one question about 4 or 5 sets of pictures with 32 words each: random weights alone leave
logits so close that rounding decides. Then it is exported in fp32 and fp16 and asked for these answers, and each graph is
built with TensorRT-RTX for sm86, without a GPU. Time is the processor's, which other work on the machine changes little.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from pages import DOCS, fill
from report import RESULTS, Bar, Report, Row, arguments, command, finish, measured, prepare, report, targets
from taught import teach

from vlmc.exporters.base import Precision

sys.path.insert(0, str(RESULTS.parent.parent))  # the pico models are the tests'

NAME, PAGE = "export", DOCS / "families.md"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
QUESTION = "what is there ?"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUICK = ("llava", "blip-2-t5")
GPU = "sm86"


def main(given: Sequence[str]) -> int:
    """Measure, print and write; with --table, fill in the page's table from the results."""
    parser = arguments(__doc__)
    parser.add_argument("--families", help="some of them, with commas between [default: all; two of them if --quick]")
    parser.add_argument("--jobs", type=int, default=1, help="families that are exported at once [default: 1]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the results into docs/families.md")
    chosen = parser.parse_args(given)
    if chosen.table:
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))
        return 0
    prepare(chosen)
    finish(run(chosen, command(NAME, given)), NAME, chosen)
    return 0


def run(chosen: argparse.Namespace, line: str) -> Report:
    """Export every family, some at once in processes of their own."""
    from tests import pico

    families = chosen.families.split(",") if chosen.families else list(QUICK if chosen.quick else pico.FAMILIES)
    rows: list[Row] = []
    with ProcessPoolExecutor(chosen.jobs, get_context("spawn")) as pool:
        for family, found in zip(families, pool.map(export, families, [chosen.threads or 1] * len(families)), strict=True):
            print(f"{family} done", file=sys.stderr, flush=True)
            rows += found
    return report(line, rows, bars(families, rows), {"families": families, "gpu": GPU, "jobs": chosen.jobs})


def export(family: str, threads: int) -> list[Row]:
    """Return the rows of one family."""
    import torch
    from tests.artifacts import dense, pruned, share_operators
    from transformers.utils import logging

    from vlmc.runtime.errors import one_line
    from vlmc.toolchain.data.encode import Encoder
    from vlmc.toolchain.deploy.deployed import deploy
    from vlmc.toolchain.models.saved import SavedModel

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    share_operators()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = pruned(dense(family, folder / "dense"), folder / "pruned")
        source = SavedModel(str(made.root), made.root)
        model, layers = source.load(), made.manifest.layers
        asked = [replace(sample, question=QUESTION) for sample in deploy(source, model, layers).questions]
        teach(model, Encoder(source.load_processor(), source.family, model), asked, WORDS, layers)
        rows: list[Row] = []
        for precision in PRECISIONS:
            try:
                (folder / precision).mkdir()
                exporting = Exporting(family, precision, source, folder / precision)
                rows += exporting.rows(model, layers, asked)
            except Exception as error:  # torch's exporter raises what it likes, and the other families are measured too
                told = f"{family}: not exported in {precision}: {one_line(error)[:300]}"
                rows.append(Row(told, None, f"export, {precision}", None, "", None, None))
        return rows


@dataclass(frozen=True)
class Exporting:
    """A pruned model, to be exported in one type."""

    family: str
    precision: Precision
    source: Any
    folder: Path

    def rows(self, model: Any, layers: Any, asked: Sequence[Any]) -> Iterator[Row]:
        """Export, ask and build; yield what was measured."""
        from vlmc.exporters.base import Options
        from vlmc.exporters.onnx.exporter import export as export_graph
        from vlmc.runtime.sessions import OnnxSession
        from vlmc.toolchain.deploy.agreement import Exported, compare_answers
        from vlmc.toolchain.deploy.deployed import deploy

        options = Options(self.precision)
        deployed = deploy(self.source, model, layers)
        for spec in deployed.specs:
            start = process_time()
            found = export_graph(spec, self.folder / f"{spec.name}.onnx", options)
            spent = process_time() - start
            name = f"{self.family}: {spec.name}"
            assert found.max_error is not None
            yield measured(name, f"export time, {self.precision}", [spent], "s of a core")
            yield measured(name, f"largest error, {self.precision}", [found.max_error], "of the largest value")
            yield measured(name, f"size, {self.precision}", [found.bytes], "bytes")
        exported = Exported(deployed.deployment, self.folder, ".onnx", OnnxSession)
        answers = compare_answers(model, self.source, exported, asked, options.tolerance)
        equal = 1 - answers["answers_that_differ_at_a_tie"] / answers["questions"]
        yield measured(self.family, f"answers equal, {self.precision}", [100 * equal], "%")
        yield measured(self.family, f"tokens compared, {self.precision}", [answers["tokens"]], "")
        for spec in deployed.specs:
            yield self._engine(spec)

    def _engine(self, spec: Any) -> Row:
        from vlmc.exporters.tensorrt.binding import bind
        from vlmc.exporters.tensorrt.building import Target, build
        from vlmc.runtime.errors import VlmcError

        name, metric = f"{self.family}: {spec.name}", f"engine, {self.precision}"
        try:
            built = build(bind(), spec, self.folder / f"{spec.name}.onnx", Target(GPU), lambda _: None)
        except VlmcError as error:
            return Row(f"{name}: {error}", None, metric, None, "bytes", None, None)
        return measured(name, metric, [len(built.engine)], "bytes")


def bars(families: Sequence[str], rows: Sequence[Row]) -> list[Bar]:
    """Return the issue's targets, counted in families."""
    from vlmc.exporters.base import TOLERANCE

    counted = []
    for precision in PRECISIONS:
        limit = TOLERANCE[precision]
        right = [one for one in families if _agrees(one, precision, limit, rows)]
        built = [one for one in families if _built(one, f"engine, {precision}", rows)]
        goal = f"all {len(families)} families"
        told = f"within {limit:g} of the largest value, answers equal"
        counted.append(Bar(f"exported in {precision}, {told}", goal, len(right), len(right) == len(families)))
        counted.append(Bar(f"built in {precision} with TensorRT-RTX", goal, len(built), len(built) == len(families)))
    return counted


def _agrees(family: str, precision: str, limit: float, rows: Sequence[Row]) -> bool:
    errors = [row.value for row in _of(family, f"largest error, {precision}", rows)]
    equal = [row.value for row in _of(family, f"answers equal, {precision}", rows)]
    return bool(errors) and all(error is not None and error <= limit for error in errors) and equal == [100.0]


def _built(family: str, metric: str, rows: Sequence[Row]) -> bool:
    engines = [row.value for row in _of(family, metric, rows)]
    return bool(engines) and None not in engines


def _of(family: str, metric: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.name.split(":")[0] == family and row.metric == metric]


def table(found: Report) -> str:
    """Return the page's table, a line for each family."""
    lines = [
        "| family | graphs | largest error: fp32 | fp16 | answers equal: fp32 | fp16 | engines: fp32 | fp16 | time, fp32 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for family in found.settings["families"]:
        errors = {kind: _of(family, f"largest error, {kind}", found.rows) for kind in PRECISIONS}
        cells = [str(len(errors["fp32"]))]
        cells += [f"{max((row.value or 0 for row in errors[kind]), default=0):.1e}" for kind in PRECISIONS]
        cells += [_answers(family, kind, found) for kind in PRECISIONS]
        for kind in PRECISIONS:
            engines = _of(family, f"engine, {kind}", found.rows)
            cells.append(f"{sum(row.value is not None for row in engines)} of {len(engines)}")
        seconds = sum(row.value or 0 for row in _of(family, "export time, fp32", found.rows))
        lines.append(f"| `{family}` | {' | '.join([*cells, f'{seconds:,.0f} s'])} |")
    failed = [row for row in found.rows if row.value is None]
    told = [f"- {row.name} ({row.metric})" for row in failed]
    ends = [targets(found), *(["Not built or not exported:", "\n".join(told)] if told else [])]
    jobs = found.settings["jobs"]
    at_once = "one family" if jobs == 1 else f"{jobs} families"
    origin = f"Measured on {found.machine}, {at_once} at a time, {found.date}: `{found.command}`."
    return "\n\n".join(["\n".join(lines), *ends, origin])


def _answers(family: str, precision: str, found: Report) -> str:
    value, tokens = (found.value(family, f"{what}, {precision}") for what in ("answers equal", "tokens compared"))
    return "none" if value is None else f"{value:g} % ({tokens:g} tokens)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
