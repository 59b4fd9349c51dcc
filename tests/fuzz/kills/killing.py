"""One kill: a verb is run, dies, is run again, and the result is compared with that of a run which nothing broke."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.cases import Finding
from tests.fuzz.child import CACHE
from tests.fuzz.commands import Command, Death, Outcome, signal
from tests.fuzz.judging import Kind, Verdict, judge
from tests.fuzz.kills.verbs import PATIENT, VERBS, Verb
from tests.fuzz.material import ADAPTED, DENSE, MODEL, Material
from tests.fuzz.sandbox import Sandbox
from vlmc.runtime.artifact.folder import MANIFEST
from vlmc.toolchain.reporting.paths import PAGE

INTERRUPTED = 130
_SIBLINGS = ("work", "partial", "previous", "blocks", "checkpoints")
_SECONDS = b'"seconds"'
_ENDS = 8  # changes of names at the end of a run, where the result is put in its place
Bytes = dict[str, str]


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing broke: the SHA-256 of its files by path, how many changes of names it made, how long it took."""

    files: Bytes
    changes: int
    seconds: float


def unbroken(name: str, material: Material, folder: Path) -> Unbroken:
    """Run a verb twice and return what came of it.

    Raises:
        RuntimeError: it fails, or two runs give other bytes.
    """
    verb, seen = VERBS[name], []
    for _ in range(2):
        with Sandbox(folder) as box:
            verb.take(material, box)
            outcome = material.children.run(Command(verb.argv), box.work, PATIENT)
            if outcome.code:
                raise RuntimeError(f"{name} gives {outcome.code} without a kill: {outcome.stderr}")
            seen.append(_files(box.work / verb.result))
    if seen[0] != seen[1]:
        raise RuntimeError(f"two runs of {name} differ in {sorted(seen[0].items() ^ seen[1].items())[0][0]}")
    return Unbroken(seen[0], outcome.changes, outcome.seconds)


def try_kill(name: str, number: int, whole: Unbroken, material: Material, folder: Path) -> Finding:
    """Kill a verb at a moment that the number decides, run it again, and judge what is there."""
    random, verb = Random(f"kill {name}:{number}"), VERBS[name]
    death = _draw(random, whole)
    beside, resume = random.random() < 0.25 and not verb.in_place, random.random() < 0.7
    with Sandbox(folder) as box:
        verb.take(material, box)
        foreign = [box.foreign(f"{verb.result}.{ending}") for ending in (_SIBLINGS if beside else ())]
        foreign += [box.foreign("xx"), box.foreign("my.partial")]
        died = material.children.run(Command(verb.argv, death=death), box.work, PATIENT)
        verdict, last = _judge(verb, whole, material, box, died, resume=resume)
        lost = [one.name for one in foreign if not (one / "thesis.txt").is_file()]
        if lost:
            verdict = Verdict(Kind.LOST, f"{name} deletes the user's {lost[0]}")
    moment = f"before change {death.before} of {whole.changes}" if death.before else f"after {death.after:.2f} s"
    what = f"{death.by.name} {moment}{', beside foreign folders' if beside else ''}{', resumed' if resume else ''}"
    return Finding(f"{name}:{number}", what, " ".join(verb.argv), verdict, last)


def _draw(random: Random, whole: Unbroken) -> Death:
    by = signal.SIGINT if random.random() < 0.2 else signal.SIGKILL
    do = random.random()
    if do < 0.3:
        return Death(after=random.uniform(0, whole.seconds), by=by)
    first = max(1, whole.changes - _ENDS) if do < 0.65 else 1
    return Death(before=random.randint(first, max(1, whole.changes)), by=by)


def _judge(
    verb: Verb, whole: Unbroken, material: Material, box: Sandbox, died: Outcome, *, resume: bool
) -> tuple[Verdict, Outcome]:
    """Return the verdict, and the last command's outcome."""
    name, result = verb.argv[0], box.work / verb.result
    if died.code == INTERRUPTED and died.stderr.count("\n") != 1:
        return Verdict(Kind.MESSAGE, f"{name} interrupted: {died.stderr.count(chr(10))} lines"), died
    if died.code not in {0, 2, INTERRUPTED, -signal.SIGKILL, -signal.SIGINT}:
        return Verdict(Kind.INTERNAL, f"{name} interrupted exits {died.code}: {died.stderr[:60]}"), died
    if result.is_dir() and name != "demo-data":
        looked = material.children.run(Command(("inspect", verb.result, "--quiet")), box.work)
        if looked.code:
            return Verdict(Kind.LOST, f"{name} leaves an artifact that is refused: {looked.stderr[:60]}"), looked
    extra = verb.replace if result.is_dir() and not verb.in_place else verb.resume if resume else ()
    again = material.children.run(Command((*verb.argv, *extra)), box.work, PATIENT)
    verdict = judge(again, PATIENT)
    if verdict.kind is not Kind.ACCEPTED:
        refused = verdict.kind is Kind.CLEAN and any(one.name.startswith("x.") for one in box.foreigners)
        kept = Verdict(Kind.CLEAN) if refused else Verdict(verdict.kind, f"{name} again: {again.stderr[:60]}")
        return (kept if refused or verdict.is_defect else Verdict(Kind.LOST, kept.place)), again
    return _compare(name, whole, box, result), again


def _compare(name: str, whole: Unbroken, box: Sandbox, result: Path) -> Verdict:
    files = _files(result)
    if files != whole.files:
        return Verdict(Kind.LOST, f"{name} again gives another {sorted(files.items() ^ whole.files.items())[0][0]}")
    known = {DENSE, MODEL, ADAPTED, CACHE, result.name, *(one.name for one in box.foreigners)}
    left = sorted(one.name for one in box.work.iterdir() if one.name not in known)
    if left:
        return Verdict(Kind.LOST, f"{name} leaves {'a hidden folder' if left[0].startswith('.') else left[0]} for good")
    return Verdict(Kind.ACCEPTED)


def _files(folder: Path) -> Bytes:
    """Return the digests of a folder's files. Times count nowhere, and files that tell them not in the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / PAGE)  # which tells times
    timed = {str(path.relative_to(folder)) for path in paths if path.suffix == ".json" and _SECONDS in path.read_bytes()}
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    for name in timed | {MANIFEST} & found.keys() if timed else ():
        content = _without_times(json.loads(found[name]))
        if name == MANIFEST:
            content["files"] = {path: file for path, file in content["files"].items() if path not in timed}
            del content["checksum"]
        found[name] = json.dumps(content).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if key != "seconds"}
    return [_without_times(one) for one in value] if isinstance(value, list) else value
