"""The table in docs/repair.md, made from the results."""

from report import Report, Row, targets

from lora_steps.words import CHECKPOINTED, COSINES, KEPT, PEAK, STEP

TIMES = (STEP, CHECKPOINTED)


def table(found: Report) -> str:
    """Return what was measured, a line for each subject and method, the goals, and where the figures come from."""
    done = found.settings
    head = [
        f"Layers as wide as the first column says (11008: 11008 x 4096) with {done['tokens']:,} tokens",
        *([f"vlm: {done['vlm']}"] if "vlm" in done else []),
        f"Rank {done['rank']}, {done['dtype']}; times are medians of {done['repeats']} rounds, whose spread is at most "
        f"{_greatest_spread(found):.1f} times the median; in brackets the ratio to plain LoRA, of times the median of the "
        "ratios within a round",
    ]
    origin = f"Measured on {found.machine}, torch {found.versions['torch']}, {found.date}: `{found.command}`."
    return "\n\n".join([". ".join(head) + ".", _rows(found), targets(found), origin])


def _rows(found: Report) -> str:
    lines = [
        "| | method | step, ms | checkpointed, ms | peak memory, MiB | kept, MiB | cosine of dA / dB / both |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    before = ""
    for name in dict.fromkeys(row.name for row in found.rows):
        subject, _, method = name.partition(": ")
        cells = [_cell(found.find(name, metric)) for metric in (*TIMES, PEAK)]
        cosines = [found.value(name, metric) for metric in COSINES]
        cells += [_number(found.value(name, KEPT)), " / ".join(f"{one:.4f}" for one in cosines if one is not None)]
        lines.append(f"| {subject if subject != before else ''} | {method} | {' | '.join(cells)} |")
        before = subject
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return _number(row.value) + ("" if row.ratio is None else f" ({row.ratio:.2f}x)")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _greatest_spread(found: Report) -> float:
    return max((row.spread or 0.0) / row.value for row in found.rows if row.metric in TIMES and row.value)
