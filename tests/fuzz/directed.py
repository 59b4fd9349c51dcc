"""Doing the known attacks: each in a sandbox of its own, judged like any other case."""

from pathlib import Path

from tests.fuzz.attacks import ATTACKS
from tests.fuzz.attacks.attempt import Attempt, Broken
from tests.fuzz.cases import Finding
from tests.fuzz.commands import Outcome
from tests.fuzz.judging import Kind, Verdict
from tests.fuzz.material import Material
from tests.fuzz.sandbox import OUTSIDE, Sandbox, changed

DIRECTED = tuple(ATTACKS)
_NOTHING = Outcome(0, "", "", 0, 0.0)


def try_directed(name: str, material: Material, folder: Path) -> list[Finding]:
    """Do one attack; return what does not hold, or one finding that all does.

    What lies outside, and the user's own folders, must be as they were, whatever else comes of it.
    """
    attack = ATTACKS[name]
    says = " ".join((attack.__doc__ or name).split())
    with Sandbox(folder) as box:
        attempt, before = Attempt(material, box), _outside(box)
        try:
            attack(attempt)
        except (OSError, ValueError):  # the attack needs what the command before did not do
            if not attempt.broken:
                raise
        if lost := _touched(box, before):
            attempt.broken.append(Broken(lost, *attempt.last))
        found = {one.verdict: one for one in reversed(attempt.broken)} or {
            Verdict(Kind.ACCEPTED): Broken(Verdict(Kind.ACCEPTED), *attempt.last)
        }
    return [
        Finding(f"directed:{name}", says, str(one.command), verdict, one.outcome or _NOTHING)
        for verdict, one in reversed(found.items())
    ]


def _outside(box: Sandbox) -> dict[str, tuple[object, ...]]:
    return {path: state for path, state in box.snapshot().items() if path.startswith(OUTSIDE)}


def _touched(box: Sandbox, before: dict[str, tuple[object, ...]]) -> Verdict | None:
    if added := changed(before, _outside(box)):
        return Verdict(Kind.OUTSIDE, added[0])
    lost = [folder.name for folder in box.foreigners if not (folder / "thesis.txt").is_file()]
    return Verdict(Kind.LOST, f"deletes the user's {', '.join(lost)}") if lost else None
