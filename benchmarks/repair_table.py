"""What repair.json says, in Markdown: a table of methods and sparsities, and in how many of them RESSA leads."""

from collections.abc import Iterable

from labels import ACCURACY
from report import Report, Row, tenths

NO_REPAIR, PEAK = "no repair", "peak lr"
RIVALS = ("lora-remask", "lors", "spp", "sparse-lora")
"""Methods whose result holds the mask too, and that train no more than RESSA does."""


def table(found: Report) -> str:
    """Return for each model accuracies, methods down and sparsities across, and RESSA's leads."""
    settings = found.settings
    head = (
        f"Right answers to {settings['questions']['test']:,} test questions after {settings['repair']['steps']} steps of "
        f"{settings['repair']['batch']} samples, vision and language pruned by {settings['prune']['method'].capitalize()}: "
        f"the mean of {settings['seeds']} seeds and, in brackets, their spread. Peak learning rates are the best on "
        f"{settings['questions']['validation']:,} validation questions at {settings['patterns'][0]}."
    )
    tables = [part for model in settings["models"] for part in (_accuracies(found, model), _leads(found, model))]
    return "\n\n".join([head, *tables, _origin(found)])


def _accuracies(found: Report, model: str) -> str:
    patterns = found.settings["patterns"]
    methods = [row.name.removeprefix(f"{model}: ") for row in found.rows if row.metric == PEAK and _of(row, model)]
    dense = found.find(f"{model}: dense", ACCURACY)
    lines = [_line([f"`{model}`, dense {_cell(dense)}", PEAK, *patterns]), "|---|" + "---:|" * (len(patterns) + 1)]
    for method in (NO_REPAIR, *methods):
        rate = found.value(f"{model}: {method}", PEAK)
        cells = [_cell(found.find(f"{model} {pattern}: {method}", ACCURACY)) for pattern in patterns]
        lines.append(_line([method if method == NO_REPAIR else f"`{method}`", "" if rate is None else f"{rate:g}", *cells]))
    return "\n".join(lines)


def _leads(found: Report, model: str) -> str:
    patterns = found.settings["patterns"]
    lines = [_line(["RESSA's lead in points, over", *patterns]), "|---|" + "---:|" * len(patterns)]
    for rival in RIVALS:
        bars = [next(bar for bar in found.bars if bar.name == lead(f"{model} {pattern}", rival)) for pattern in patterns]
        lines.append(_line([f"`{rival}`", *(f"{bar.value:+.2f}" + (", beyond" if bar.holds else "") for bar in bars)]))
    return "\n".join([*lines, "", "*beyond*: by more than the greater of the two methods' spreads."])


def lead(where: str, rival: str) -> str:
    """Return the name of the bar that says how far RESSA is ahead."""
    return f"{where}: lead of ressa over {rival}"


def verdict(found: Report) -> str:
    """Return in a sentence or two where RESSA leads, and where the table is."""
    settings, count = found.settings, len(found.settings["patterns"])
    parts = [_standing(found, rival) for rival in RIVALS]
    budget = f"{settings['repair']['steps']} steps, a learning rate chosen for each method"
    where = f"{count} sparsities, {', '.join(settings['patterns'])}"
    beyond = f"*Beyond*: by more than the spread of {settings['seeds']} seeds."
    page = "[All methods](docs/repair.md#methods) stand beside each other there."
    ahead = f"Under one budget ({budget}) at {where}, RESSA's mean is ahead of {'; of '.join(parts)}."
    return " ".join([ahead, beyond, page, _origin(found)])


def _standing(found: Report, rival: str) -> str:
    """Return in how many sparsities RESSA is ahead of one method, and where beyond the spread."""
    bars = [bar for bar in found.bars if bar.name.endswith(f" over {rival}")]
    alone = f"{found.settings['models'][0]} " if len(found.settings["models"]) == 1 else ""
    beyond = [bar.name.partition(": lead")[0].removeprefix(alone) for bar in bars if bar.holds]
    return f"`{rival}` in {sum(bar.value > 0 for bar in bars)} of {len(bars)}, beyond at {', '.join(beyond) or 'none'}"


def _origin(found: Report) -> str:
    return f"Measured on {found.machine}, {found.date}: `{found.command}`."


def _of(row: Row, model: str) -> bool:
    return row.name.startswith(f"{model}: ")


def _cell(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{tenths(row.value)} %" + ("" if row.spread is None else f" ({tenths(row.spread)})")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
