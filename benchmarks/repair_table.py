"""What repair.json says, in Markdown: a table of methods and sparsities, and in how many of them RESSA leads."""

from collections.abc import Iterable

from labels import ACCURACY
from report import Report, Row, targets, tenths

NO_REPAIR, PEAK = "no repair", "peak lr"
RIVALS = ("lora-remask", "lors", "spp", "sparse-lora")
"""Methods whose result holds the mask too, and that train no more than RESSA does."""
LEADERS = ("ressa", "ressa --temperature 2")


def table(found: Report) -> str:
    """Return for each model accuracies, methods down and sparsities across, and RESSA's leads."""
    settings = found.settings
    head = (
        f"Right answers to {settings['questions']['test']:,} test questions after {settings['repair']['steps']} steps of "
        f"{settings['repair']['batch']} samples, vision and language pruned by {settings['prune']['method'].capitalize()}: "
        f"the mean of {settings['seeds']} seeds and, in brackets, their spread. Peak learning rates are the best on "
        f"{settings['questions']['validation']:,} validation questions at {settings['patterns'][0]}."
    )
    tables = [
        part
        for model in settings["models"]
        for part in (_accuracies(found, model), *(_leads(found, model, leader) for leader in LEADERS))
    ]
    beyond = "*beyond*: by more than the greater of the two spreads."
    return "\n\n".join([head, *tables, beyond, targets(found), _origin(found)])


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


def _leads(found: Report, model: str, leader: str) -> str:
    patterns = found.settings["patterns"]
    lines = [_line([f"lead of `{leader}` in points, over", *patterns]), "|---|" + "---:|" * len(patterns)]
    for rival in RIVALS:
        cells = [_ahead(found, f"{model} {pattern}", leader, rival) for pattern in patterns]
        lines.append(_line([f"`{rival}`", *cells]))
    return "\n".join(lines)


def _ahead(found: Report, where: str, leader: str, rival: str) -> str:
    ahead, beyond = _lead(found, where, leader, rival)
    return f"{ahead:+.2f}" + (", beyond" if beyond else "")


def _lead(found: Report, where: str, leader: str, rival: str) -> tuple[float, bool]:
    """Return by how many points one mean is ahead of another, and whether that is more than either's spread."""
    (ours, our_spread), (theirs, their_spread) = (_mean(found, f"{where}: {name}") for name in (leader, rival))
    return ours - theirs, ours - theirs > max(our_spread, their_spread)


def _mean(found: Report, name: str) -> tuple[float, float]:
    row = found.find(name, ACCURACY)
    if row is None or row.value is None:
        raise ValueError(f"no accuracy of {name}: measure again")
    return row.value, row.spread or 0.0


def lead(where: str, rival: str) -> str:
    """Return the name of the bar that says how far RESSA is ahead."""
    return f"{where}: lead of ressa over {rival}"


def verdict(found: Report) -> str:
    """Return in a few sentences where RESSA leads, and where the table is."""
    settings = found.settings
    budget = f"{settings['repair']['steps']} steps, a learning rate chosen for each method"
    where = f"{len(settings['patterns'])} sparsities, {', '.join(settings['patterns'])}"
    plain, warm = ("; of ".join(_standing(found, leader, rival) for rival in RIVALS) for leader in LEADERS)
    ahead = f"Under one budget ({budget}) at {where}, RESSA's mean is ahead of {plain}."
    warmer = f"With `--temperature 2`, which the others were not given: of {warm}."
    beyond = f"*Beyond*: by more than the spread of {settings['seeds']} seeds."
    page = "[All methods](docs/repair.md#methods) stand beside each other there."
    return f"{' '.join([ahead, warmer, beyond, page, _origin(found)])}\n\n{targets(found)}"


def _standing(found: Report, leader: str, rival: str) -> str:
    """Return in how many sparsities one is ahead of another, and where beyond the spread."""
    models, patterns = found.settings["models"], found.settings["patterns"]
    places = [f"{model} {pattern}" for model in models for pattern in patterns]
    leads = {place: _lead(found, place, leader, rival) for place in places}
    alone = f"{models[0]} " if len(models) == 1 else ""
    beyond = [place.removeprefix(alone) for place, (_, far) in leads.items() if far]
    ahead = sum(points > 0 for points, _ in leads.values())
    return f"`{rival}` in {ahead} of {len(leads)}, beyond at {', '.join(beyond) or 'none'}"


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
