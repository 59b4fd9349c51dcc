"""Option sets: quick commands that work, with a few of their options, or of other verbs', set to something odd."""

from functools import cache
from random import Random
from typing import Any

from tests.fuzz.spoiling import TEXTS

_TRAIN = ("--steps", "1", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("inspect", "model"),
    ("verify-sparsity", "model"),
    ("verify-sparsity", "dense", "--target", "2:4"),
    ("eval", "model", "--count", "2", "--batch", "2"),
    ("prune", "dense", "--calibration", "2", "--method", "magnitude"),
    ("prune", "dense", "--calibration", "2"),
    ("repair", "model", *_TRAIN),
    ("merge", "model"),
    ("compress", "dense", "--calibration", "2", *_TRAIN),
    ("run", "model", "--image", "p.png", "--prompt", "what is the largest digit ?", "--max-new-tokens", "3"),
    ("demo-data", "questions", "--count", "3"),
    ("sweep", "dense", "--calibration", "2", "--count", "2", "--method", "magnitude", "--sums", "100", "--shares", "50:50"),
    ("serve", "model", "--port", "0"),
    ("serve", "model", "--port", "0", "--beside", "model"),
    ("bench", "model", "--rounds", "1", "--new-tokens", "2", "--engine", "torch"),
    ("doctor",),
)
_ODD = (
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1e20",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "nan",
    "inf",
    "-inf",
    "0.001%",
    "100%",
    "50%",
    "2:4",
    "4:8",
    "0:4",
    "2:2",
    "cpu:7",
    "cuda:99",
    "cpu",
    "none",
    "all",
    "test",
    "demo",
    "dense",
    "model",
    "p.png",
    "a=b",
    "a=b,c",
    "=",
    ",",
    "*=2:4",
    "[=2:4",
    "good{1..30000000}.jsonl",
    "good{a,b",
    "demo=1e400",
    "demo=nan,demo=1",
)
_EFFORT = {"--rounds", "--new-tokens", "--steps", "--reconstruct-epochs", "--workers", "--max-new-tokens"}
"""Options of which a large number is a lot of work that was asked for, and no defect."""
_LEFT = {"--debug", "--host"}
"""Options that are left alone: one asks for a traceback, one for the resolution of a name."""
_LARGE = {"1e20", "18446744073709551616", "9223372036854775807", "4294967296"}
_ENVIRONMENTS = (
    {},
    {},
    {},
    {"WORLD_SIZE": "abc"},
    {"RANK": "x"},
    {"WORLD_SIZE": "-1"},
    {"VLMC_CACHE": "/dev/null/x"},
    {"COLUMNS": "x"},
    {"LANG": "x\udcff"},
)


def draw(random: Random) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return arguments and environment variables."""
    argv = list(random.choice(COMMANDS))
    for _ in range(random.choice([1, 1, 2, 3])):
        _spoil(random, argv)
    inside = (text.replace("../../", "../") for text in argv)  # a path out of the sandbox would be what was asked for
    return tuple(inside), dict(random.choice(_ENVIRONMENTS))


def _spoil(random: Random, argv: list[str]) -> None:
    """Set an option of the verb to something odd, or spoil what stands in its place; one of another verb now and then."""
    do = random.random()
    if not argv:
        argv.append(random.choice([*TEXTS, *_ODD]))
        return
    if do < 0.1:
        argv[random.randrange(len(argv))] = random.choice([*TEXTS, *_ODD])
        return
    if do < 0.15:
        del argv[random.randrange(len(argv))]
        return
    known = _options()
    flag, takes = random.choice(
        known.get(argv[0], [pair for pairs in known.values() for pair in pairs]) or [("--help", False)]
    )
    argv.append(flag)
    if takes:
        odd = [text for text in _ODD if flag not in _EFFORT or text not in _LARGE]
        argv.append(random.choice([*odd, *odd, *TEXTS]))


@cache
def _options() -> dict[str, list[tuple[str, bool]]]:
    """Return each verb's options and whether they take a value."""
    import typer

    from vlmc.toolchain.cli.app import app

    group: Any = typer.main.get_command(app)
    return {
        name: [(flag, takes) for flag, takes in map(_flag, command.params) if flag.startswith("--") and flag not in _LEFT]
        for name, command in group.commands.items()
    }


def _flag(option: Any) -> tuple[str, bool]:
    return option.opts[0], not getattr(option, "is_flag", False)
