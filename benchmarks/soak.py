"""`vlmc serve` under fire: clients that vanish, read slowly, or send broken images and bodies; a new artifact; SIGTERM.

After a warm-up the memory of the idle server is read, then the storm goes on for --minutes while the artifact's folder is
replaced twice, then memory is read again. A last storm ends with SIGTERM in its middle; everything that was let in must be
answered, and a server that is started on the new artifact must give the same answers. The wrongs that a bar counts are
those of all storms. Memory is what is resident but for mapped files; the cache of images' features, which a storm of
many images would fill, is given next to nothing.
"""

import argparse
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from pages import DOCS, fill
from report import RESULTS, Bar, Report, Row, arguments, command, finish, measured, prepare, report, targets
from storm.clients import CLIENTS, Target
from storm.server import ServerProcess
from storm.storming import Tally, learn, storm

NAME, PAGE = "soak", DOCS / "serve.md"
PICTURES = 8
GROWTH = 5.0  # percent of the memory before
OPTIONS = ("--max-body", "2", "--max-batch", "8", "--max-queue", "32", "--timeout", "60", "--image-cache", "0.1")
ANSWERED = ("whole answer", "streamed answer")


@dataclass
class Found:
    """What a run found: what came of requests, memory in bytes, and how the server ended."""

    tally: Tally
    before: int = 0
    after: int = 0
    left: int = 0
    crashes: int = 0
    exit_code: int | None = None
    changed: int = 0


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, help="how long the storm lasts [default: 10; 0.3 if --quick]")
    parser.add_argument("--clients", type=int, default=64, help="clients at a time [default: 64]")
    parser.add_argument("--seed", type=int, default=0, help="what clients do [default: 0]")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the page's table from the results")
    parser.add_argument("--artifact", type=Path, help="a model with ONNX graphs [default: the demo, pruned by magnitude]")
    chosen = parser.parse_args(given)
    chosen.minutes = chosen.minutes or (0.3 if chosen.quick else 10)
    prepare(chosen)
    if not chosen.table:
        _measure(chosen, given)
    if chosen.table or not (chosen.quick or chosen.out):
        fill(PAGE, NAME, table(Report.read(RESULTS / f"{NAME}.json")))


def _measure(chosen: argparse.Namespace, given: Sequence[str]) -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        artifact = folder / "artifact"
        if chosen.artifact is None:
            make(artifact)
        else:
            shutil.copytree(chosen.artifact, artifact)
        found = run(artifact, folder / "log", chosen.minutes * 60, chosen.clients, chosen.seed, chosen.threads or 1)
    finish(reported(found, chosen, command(NAME, given)), NAME, chosen)


def make(artifact: Path) -> None:
    """Prune the demo model the quickest way, and export it."""
    from vlmc.toolchain.machine.progress import Progress
    from vlmc.toolchain.models.saved import SavedModel
    from vlmc.toolchain.settings import ExportSettings, PruneSettings
    from vlmc.toolchain.stages.export import Export
    from vlmc.toolchain.stages.prune import Prune

    options = PruneSettings(target="2:4", method="magnitude", calibration=1)
    Export(ExportSettings(), "onnx", Progress(quiet=True)).run(Prune(options).run(SavedModel.find("demo"), artifact))


def run(artifact: Path, log: Path, seconds: float, clients: int, seed: int, threads: int) -> Found:
    """Storm a server for so many seconds, and end it in the middle of another storm."""
    server = ServerProcess(artifact, log, threads, OPTIONS)
    try:
        target = Target(server.host, server.port, server.model, {})
        target = Target(server.host, server.port, server.model, learn(target, PICTURES))
        found = Found(Tally())
        storm(target, clients, 0.3 * seconds, seed, found.tally)
        server.idle()
        found.before = server.memory()
        for part in range(3):
            storm(target, clients, seconds / 3, seed + 1 + part, found.tally)
            found.crashes += not server.alive
            if part < 2:
                replace(artifact)
        found.left = 0 if server.idle() else server.questions()
        found.after = server.memory()
        _end_in_a_storm(server, target, clients, min(20.0, seconds / 6), seed + 9, found)
    except BaseException:
        server.kill()
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-4000:])
        raise
    found.changed = _answers_that_changed(artifact, log, threads, target)
    return found


def replace(artifact: Path) -> None:
    """Put a copy in the artifact's place while it is served."""
    shutil.copytree(artifact, artifact.with_name("new"))
    artifact.rename(artifact.with_name("old"))
    artifact.with_name("new").rename(artifact)
    shutil.rmtree(artifact.with_name("old"))


def _end_in_a_storm(server: ServerProcess, target: Target, clients: int, seconds: float, seed: int, found: Found) -> None:
    threading.Timer(seconds / 2, server.tell_to_end).start()
    storm(target, clients, seconds, seed, found.tally)
    found.exit_code = server.end()


def _answers_that_changed(artifact: Path, log: Path, threads: int, target: Target) -> int:
    server = ServerProcess(artifact, log, threads, OPTIONS)
    try:
        again = learn(Target(server.host, server.port, server.model, {}), PICTURES)
        server.tell_to_end()
        server.end()
    finally:
        server.kill()
    return sum(again[seed] != text for seed, text in target.right.items())


def reported(found: Found, chosen: argparse.Namespace, line: str) -> Report:
    """Return rows and bars of what was found."""
    rows = [row for kind in CLIENTS for row in _rows(kind, found.tally)]
    rows += [
        measured("server, idle, after the warm-up", "resident memory", [found.before / 1e6], "MB"),
        measured("server, idle, after the storm", "resident memory", [found.after / 1e6], "MB"),
    ]
    settings = {"minutes": chosen.minutes, "clients": chosen.clients, "seed": chosen.seed, "serve": list(OPTIONS)}
    return report(line, rows, bars(found), settings)


def _rows(kind: str, tally: Tally) -> list[Row]:
    counts = [measured(f"{kind}: {status}", "requests", [count], "") for status, count in tally.of(kind).items()]
    seconds = tally.seconds.get(kind, [])
    if kind not in ANSWERED or len(seconds) < 2:
        return counts
    slow = quantiles(seconds, n=20)[-1]
    return [*counts, measured(kind, "median time", [median(seconds)], "s"), measured(kind, "p95 time", [slow], "s")]


def bars(found: Found) -> list[Bar]:
    """Return the issue's targets."""
    tally = found.tally
    failed = sum(count for (_, status), count in tally.statuses.items() if status == 500)
    growth = 100 * (found.after - found.before) / found.before
    return [
        _none("crashes", found.crashes),
        _none("responses with status 500", failed),
        _none("requests neither answered nor refused clearly", sum(tally.unclear.values())),
        _none("answers that differ from those given one at a time", tally.wrong),
        _none("questions left in the batch", found.left),
        Bar("memory after the storm", f"at most {GROWTH:g} % above before", round(growth, 2), growth <= GROWTH),
        _none("exit code after SIGTERM in a storm", -1 if found.exit_code is None else found.exit_code),
        _none("answers that the replaced artifact gives differently", found.changed),
    ]


def _none(name: str, value: int) -> Bar:
    return Bar(name, "0", value, value == 0)


def table(found: Report) -> str:
    """Return the page's table: what came of every kind of request, and the targets."""
    lines = ["| requests | how many | what came of them |", "|---|---:|---|"]
    for kind in CLIENTS:
        counts = {
            row.name.removeprefix(f"{kind}: "): int(row.value or 0)
            for row in found.rows
            if row.name.startswith(f"{kind}: ") and row.metric == "requests"
        }
        came = ", ".join(f"{status}: {count:,}" for status, count in counts.items())
        lines.append(f"| {kind} | {sum(counts.values()):,} | {came} |")
    return "\n".join([*lines, "", targets(found), "", f"Measured on {found.machine}, {found.date}: `{found.command}`."])


if __name__ == "__main__":
    main(sys.argv[1:])
