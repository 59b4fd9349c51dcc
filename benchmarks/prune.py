"""Pruning to 2:4 by vlmc, by llm-compressor and by textbook code: time, peak memory, layers' output error, right answers.

Every contestant is a process of its own that gets the same model, the same calibration tokens and as many threads; both
towers are pruned, each block on what the already pruned blocks before it give out (the textbook's on the dense model's).
Two models: the demo, and a wide and deep one with random weights whose times and sizes can be compared. A process first
does a small job of the same kind that does not count; then time runs from the model on disk to the pruned one on disk,
and memory is the process's resident set at its peak less what was resident before (VmHWM, VmRSS). Contestants take turns.
A layer's error is ||(W - W') X|| / ||W X|| with X what the dense model feeds it on held-out validation samples.
llm-compressor is installed into an environment of its own (--peer-env). A full run also brings the table and the picture in
docs/ up to date; --table does that from the results that are there.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from plot import is_current
from prune_peers.arena import AS_STORED, CONTESTANTS, NARROW, Arena, Contestant, Times, Work
from prune_peers.environment import default_folder
from prune_peers.job import Taken
from prune_peers.judging import accuracy, layer_errors, mask_agreement, tensors_of_layers
from prune_peers.material import encoded
from prune_peers.pages import draw, filled
from prune_peers.words import (
    ABOVE,
    ABSOLUTE,
    ACCURACY,
    ADMM,
    ADMM_REFIT,
    AGREEMENT,
    AGREEMENT_FLOAT,
    BETTER,
    BUSY,
    DEMO,
    DENSE,
    ERROR,
    RATIO,
    SPARSEGPT,
    SPARSEGPT_BRAIN,
    SPARSEGPT_FLOAT,
    TEXTBOOK_WANDA,
    THEIR_SPARSEGPT,
    THEIR_SPARSEGPT_STORED,
    THEIR_WANDA,
    THEIR_WANDA_STORED,
    TIME,
    WANDA,
    WANDA_BRAIN,
    WANDA_FLOAT,
    WIDE,
)
from report import RESULTS, Bar, Report, Row, arguments, at_least, command, finish, measured, prepare, report

from vlmc.runtime.artifact.texts import write_text

NAME = "prune"
DOCS = RESULTS.parent.parent / "docs"
PAGE, PICTURE = DOCS / "pruning.md", DOCS / "prune.png"


def main(given: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds on the wide model [default: 3; 1 if --quick]")
    parser.add_argument("--peer-env", type=Path, default=default_folder(), help="llm-compressor's environment")
    parser.add_argument("--table", action="store_true", help="measure nothing; bring the page and the picture up to date")
    chosen = parser.parse_args(given)
    if not chosen.table:
        prepare(chosen)
        work = Work.of(quick=chosen.quick, repeats=chosen.repeats)
        finish(run(work, chosen.peer_env, command(NAME, given), install=not chosen.quick), NAME, chosen)
    if chosen.table or not (chosen.quick or chosen.out):
        show(RESULTS / f"{NAME}.json")


def show(source: Path) -> None:
    """Bring the page's table and the picture up to date."""
    found = Report.read(source)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), found))
    if not is_current(PICTURE, source):
        draw(found, source, PICTURE)


def run(work: Work, peer_env: Path, line: str, *, install: bool) -> Report:
    """Let all contestants prune both models, and judge what they made."""
    import torch

    with TemporaryDirectory() as scratch:
        arena = Arena(work, Path(scratch), torch.get_num_threads(), peer_env, install=install)
        times = arena.compete()
        rows = [*quality_rows(arena, DEMO, times[DEMO]), *quality_rows(arena, WIDE, times[WIDE])]
        rows += accuracy_rows(arena, times[DEMO]) + cost_rows(times[WIDE], arena.missing)
        chosen = {model: arena.precision(model, WANDA) for model in (DEMO, WIDE)}
    settings = {
        "precision": chosen,
        "target": "2:4",
        "work": asdict(work),
        "llm-compressor": arena.peer_versions() or arena.missing,
    }
    return report(line, rows, bars_of(rows, arena.missing), settings)


def quality_rows(arena: Arena, model: str, times: Times) -> list[Row]:
    """Return rows of one model: layers' errors, how often a contestant's is the lower, where Wanda's masks agree."""
    entered = [*CONTESTANTS, *(NARROW if model == DEMO else AS_STORED)]
    pruned = {one.name: arena.made(model, one.name) for one in entered if times[one.name]}
    held_out = encoded(arena.models[model], "validation", arena.work.held_out[model])
    errors = layer_errors(arena.models[model], tensors_of_layers(pruned[WANDA]), pruned, held_out)
    rows = []
    for name in (one.name for one in entered):
        rows.append(Row(titled(model, name, arena.missing), None, ERROR, None, "", None, None))
        if name in errors:
            rows[-1] = measured(rows[-1].name, ERROR, [median(errors[name].values())], "")
    if THEIR_SPARSEGPT in errors:
        for name in (SPARSEGPT, ADMM, ADMM_REFIT):
            rows += against(model, name, errors[name], errors[THEIR_SPARSEGPT])
        agreed = mask_agreement(pruned[WANDA], pruned[THEIR_WANDA])
        rows.append(replace(measured(titled(model, WANDA), AGREEMENT, [agreed], "%"), value=round(agreed, 4)))
    pairs = (
        {WANDA_BRAIN: WANDA, SPARSEGPT_BRAIN: SPARSEGPT}
        if model == DEMO
        else {WANDA: WANDA_FLOAT, SPARSEGPT: SPARSEGPT_FLOAT}
    )
    for name, other in pairs.items():
        agreed = mask_agreement(pruned[name], pruned[other])
        rows.append(replace(measured(titled(model, name), AGREEMENT_FLOAT, [agreed], "%"), value=round(agreed, 4)))
    return rows


def against(model: str, name: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[Row]:
    """Return rows of how one contestant's layers compare with those of llm-compressor's SparseGPT."""
    better = 100 * sum(ours[layer] < theirs[layer] for layer in ours) / len(ours)
    worst, beside = max(ours[layer] / theirs[layer] for layer in ours), titled(model, THEIR_SPARSEGPT)
    values = {BETTER: (round(better, 2), "%"), RATIO: (round(worst, 4), "")}
    return [Row(titled(model, name), beside, metric, *value, None, None) for metric, value in values.items()]


def accuracy_rows(arena: Arena, times: Times) -> list[Row]:
    """Return rows of the demo's right answers."""
    questions, demo = arena.work.questions, arena.models[DEMO]
    dense = measured(titled(DEMO, DENSE), ACCURACY, [accuracy(demo, demo.folder, questions)], "%")
    rows = [dense]
    for name in (one.name for one in CONTESTANTS + NARROW):
        rows.append(Row(titled(DEMO, name, arena.missing), None, ACCURACY, None, "%", None, None))
        if times[name]:
            rows[-1] = measured(rows[-1].name, ACCURACY, [accuracy(demo, arena.made(DEMO, name), questions)], "%", dense)
    return rows


def cost_rows(times: Times, missing: str) -> list[Row]:
    """Return rows of time and memory on the wide model: medians; the ratio is the median of the ratios within a round."""
    figures: dict[str, tuple[str, Callable[[Taken], float]]] = {
        TIME: ("s", lambda taken: taken.seconds),
        BUSY: ("s", lambda taken: taken.busy),
        ABOVE: ("MiB", lambda taken: (taken.peak - taken.before) / 2**20),
        ABSOLUTE: ("MiB", lambda taken: taken.peak / 2**20),
    }
    rows = []
    for metric, (unit, figure) in figures.items():
        values = {name: [figure(taken) for taken in rounds] for name, rounds in times.items()}
        for one in CONTESTANTS + AS_STORED:
            rows.append(_cost_row(one, metric, unit, values, missing))
    return rows


def _cost_row(one: Contestant, metric: str, unit: str, values: Mapping[str, list[float]], missing: str) -> Row:
    found = values[one.name]
    if not found:
        return Row(titled(WIDE, one.name, missing), None, metric, None, unit, None, None)
    row = measured(titled(WIDE, one.name), metric, [median(found)], unit)
    row = replace(row, spread=round(max(found) - min(found), 3) if len(found) > 1 else None)
    if one.beside is None or not values[one.beside]:
        return row
    ratio = median(mine / other for mine, other in zip(found, values[one.beside], strict=False))
    return replace(row, baseline=titled(WIDE, one.beside), ratio=round(ratio, 4))


def titled(model: str, contestant: str, missing: str = "") -> str:
    """Return the name of a contestant's rows; it says where one could not run."""
    lacking = f" ({missing})" if missing and contestant.startswith("llm-compressor") else ""
    return f"{model}: {contestant}{lacking}"


def bars_of(rows: Sequence[Row], missing: str) -> list[Bar]:
    """Return what the issue asks, quality of the trained demo, costs of the wide model.

    Time stands beside the quicker of llm-compressor's two types, memory beside each.
    """
    found = {(row.name, row.metric): row.value for row in rows}

    def value(model: str, name: str, metric: str) -> float:
        measure = found.get((titled(model, name), metric))
        return float("inf") if measure is None else measure

    def share(name: str, metric: str, rival: str, goal: float) -> Bar:
        ratio = value(WIDE, name, metric) / value(WIDE, rival, metric)
        return Bar(f"{WIDE}: {metric}, {name} to {rival}", f"at most {goal:g} times", round(ratio, 3), ratio <= goal)

    worst = value(DEMO, SPARSEGPT, RATIO)
    bars = [
        at_least(f"{DEMO}: {AGREEMENT}", 99.9, value(DEMO, WANDA, AGREEMENT), "%"),
        Bar(f"{DEMO}: {RATIO}, {SPARSEGPT}", "at most 1.01 times", worst, worst <= 1.01),
        at_least(f"{DEMO}: {BETTER}, {ADMM_REFIT}", 90, value(DEMO, ADMM_REFIT, BETTER), "%"),
    ]
    lead = value(DEMO, ADMM_REFIT, ACCURACY) - value(DEMO, THEIR_SPARSEGPT, ACCURACY)
    bars.append(Bar(f"{DEMO}: lead of {ADMM_REFIT} over {THEIR_SPARSEGPT}", "above 0 points", round(lead, 3), lead > 0))
    for name, rivals in ((WANDA, (THEIR_WANDA, THEIR_WANDA_STORED)), (SPARSEGPT, (THEIR_SPARSEGPT, THEIR_SPARSEGPT_STORED))):
        quickest = min(rivals, key=lambda rival: value(WIDE, rival, TIME))
        bars += [share(name, TIME, quickest, 1.0), *(share(name, ABOVE, rival, 0.5) for rival in rivals)]
    bars.append(share(WANDA, TIME, TEXTBOOK_WANDA, 1.5))
    return [replace(bar, name=f"{bar.name}: {missing}", value=0.0, holds=False) for bar in bars] if missing else bars


if __name__ == "__main__":
    main(sys.argv[1:])
