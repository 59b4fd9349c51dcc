"""An attempt: what an attack prepares, runs and expects; it goes on where something does not hold, for all to be found."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.fuzz.cases import locate
from tests.fuzz.commands import Command, Limits, Outcome
from tests.fuzz.judging import Kind, Verdict, judge
from tests.fuzz.material import DENSE, MODEL, Material
from tests.fuzz.sandbox import Sandbox

IMAGE, QUESTION = "p.png", "what is the largest digit ?"
PATIENT = Limits(seconds=90)
"""For what works long on pico models too: an export."""
Wanted = Literal["refused", "done", "either"]


@dataclass(frozen=True)
class Broken:
    """A promise that does not hold, and the command that showed it."""

    verdict: Verdict
    command: Command | None
    outcome: Outcome | None


class Attempt:
    """Runs an attack's commands in its sandbox; `broken` collects what does not hold."""

    def __init__(self, material: Material, box: Sandbox) -> None:
        self.material, self.box = material, box
        self.broken: list[Broken] = []
        self.last: tuple[Command | None, Outcome | None] = (None, None)

    def artifact(self, family: str = "llava") -> Path:
        """Take an artifact with graphs, its dense model and an image; return the artifact's folder."""
        self.dense(family)
        return self.box.take(self.material.model(family) / MODEL)

    def dense(self, family: str = "llava") -> Path:
        """Take a dense model and an image; return the model's folder."""
        self.box.take(self.material.images()[0], IMAGE)
        return self.box.take(self.material.model(family) / DENSE)

    def run(
        self, *argv: str | Command, wanted: Wanted = "either", kind: Kind = Kind.WRONG, limits: Limits | None = None
    ) -> Outcome:
        """Run a command, given whole or by its arguments; `kind`: what it counts as, not refused as wanted."""
        command = argv[0] if isinstance(argv[0], Command) else Command(tuple(str(one) for one in argv))
        outcome = self.material.children.run(command, self.box.work, limits)
        self._check(command, outcome, wanted, kind, limits or Limits())
        return outcome

    def run_together(self, *commands: Command, limits: Limits = PATIENT) -> Sequence[Outcome]:
        """Run commands at one time; each is done, or refused in one line."""
        with ThreadPoolExecutor(len(commands)) as pool:
            outcomes = list(pool.map(lambda one: self.material.children.run(one, self.box.work, limits), commands))
        for command, outcome in zip(commands, outcomes, strict=True):
            self._check(command, outcome, "either", Kind.WRONG, limits)
        return outcomes

    def expect(self, holds: bool, kind: Kind, place: str) -> None:
        """Note a defect unless it holds."""
        if not holds:
            self.broken.append(Broken(Verdict(kind, place), *self.last))

    def _check(self, command: Command, outcome: Outcome, wanted: Wanted, kind: Kind, limits: Limits) -> None:
        self.last = (command, outcome)
        verdict = judge(outcome, limits, verb=command.verb)
        if verdict.kind is Kind.INTERNAL:
            verdict = locate(command, self.material.children, self.box, verdict)
        if verdict.is_defect:
            self.broken.append(Broken(verdict, command, outcome))
            return
        self.expect(not (wanted == "refused" and outcome.code == 0), kind, f"{command.verb} accepts it")
        self.expect(not (wanted == "done" and outcome.code != 0), Kind.WRONG, f"{command.verb} is refused")


Attack: TypeAlias = Callable[[Attempt], None]
