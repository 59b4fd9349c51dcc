"""The verbs that write, each on the quickest material that it works on."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.commands import Limits
from tests.fuzz.material import ADAPTED, DENSE, MODEL, Material
from tests.fuzz.sandbox import Sandbox

_QUICK = ("--calibration", "2", "--method", "wanda", "--quiet")
_TRAIN = ("--steps", "4", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2")
_OFTEN = ("--checkpoint-every", "1")


PATIENT = Limits(seconds=90)
"""For a whole verb, on a machine that may be busy."""


@dataclass(frozen=True)
class Verb:
    """A command, the folder that it writes, what goes on with a stopped run, what replaces a result that stands there."""

    argv: tuple[str, ...]
    result: str
    take: Callable[[Material, Sandbox], object]
    resume: tuple[str, ...] = ()
    replace: tuple[str, ...] = ("--force",)

    @property
    def in_place(self) -> bool:
        """Whether it adds to what stands there."""
        return self.result == MODEL


def _dense(material: Material, box: Sandbox) -> None:
    box.take(material.model("llava") / DENSE)


def _model(material: Material, box: Sandbox) -> None:
    _dense(material, box)
    box.take(material.model("llava") / MODEL)


def _adapted(material: Material, box: Sandbox) -> None:
    _dense(material, box)
    box.take(material.adapted() / ADAPTED)


VERBS: dict[str, Verb] = {
    "demo-data": Verb(("demo-data", "x", "--count", "6", "--quiet"), "x", lambda material, box: None),
    "prune": Verb(("prune", DENSE, "--out", "x", *_QUICK), "x", _dense, ("--resume",)),
    "repair": Verb(("repair", MODEL, "--out", "x", *_TRAIN, *_OFTEN, "--quiet"), "x", _model, ("--resume",)),
    "merge": Verb(("merge", ADAPTED, "--out", "x", "--quiet"), "x", _adapted),
    "compress": Verb(("compress", DENSE, "--out", "x", *_QUICK, *_TRAIN, *_OFTEN), "x", _dense),
    "eval": Verb(("eval", MODEL, "--count", "4", "--quiet"), MODEL, _model, replace=()),
    "export": Verb(("export", MODEL, "--quiet"), MODEL, _model, replace=()),
    "report": Verb(("report", MODEL, "--quiet"), MODEL, _model, replace=()),
}
"""Every verb that writes, by its name."""
