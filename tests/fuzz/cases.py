"""Cases: an area and a number make one, always the same; `try_case` does it in a sandbox and judges it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz import calls, data_files, folders, option_sets
from tests.fuzz.children import Children
from tests.fuzz.commands import Command, Limits, Outcome
from tests.fuzz.image_files import spoil_image
from tests.fuzz.judging import Kind, Verdict, frame, judge
from tests.fuzz.material import ADAPTED, DATA, DENSE, FAMILIES, MODEL, Material
from tests.fuzz.sandbox import WORK, Sandbox, changed
from tests.fuzz.spoiling import TEXTS

IMAGE, QUESTION = "p.png", "what is the largest digit ?"
_VERIFY = Command(("verify-sparsity", MODEL, "--json"))
_INSPECT = Command(("inspect", MODEL))
_RUN = Command(("run", MODEL, "--image", IMAGE, "--prompt", QUESTION, "--max-new-tokens", "4"))
_LOAD = Command(call=partial(calls.answer, MODEL, IMAGE, QUESTION, {"max_new_tokens": 4}))
_EVAL = Command(("eval", MODEL, "--count", "2", "--quiet"))
PROVES = (_VERIFY, _RUN, _LOAD)
"""The commands that must refuse an artifact of which a listed file that they read is another."""
_WRITES: dict[str, tuple[str, ...]] = {
    "eval": (f"{MODEL}/manifest.json", f"{MODEL}/README.md", f"{MODEL}/reports"),
    "prune": ("out", "out.blocks"),  # the blocks are what --resume goes on from
    "merge": ("out",),
}
"""What a verb may change in the folder that it runs in."""
_WORKS = {"bench": 6, "compress": 6, "doctor": 6, "repair": 3, "sweep": 6}
"""Verbs that work for long, saying how far they are: by how much more they may than others before it is a hang."""


@dataclass(frozen=True)
class Trial:
    """A command on spoiled input. `proven` is the manifest that the artifact's bytes must fit, where they must."""

    command: Command
    what: str
    proven: bytes | None = None
    anywhere: bool = False  # the command's own options say where it writes


@dataclass(frozen=True)
class Finding:
    """A case, what was done, and the verdict."""

    case: str
    what: str
    command: str
    verdict: Verdict
    outcome: Outcome = field(repr=False)


def try_case(area: str, number: int, material: Material, folder: Path, limits: Limits | None = None) -> Finding:
    """Do one case and judge it; a defect inside vlmc is run again with --debug, to say in which line it is."""
    random = Random(f"{area}:{number}")
    with Sandbox(folder) as box:
        trial = AREAS[area](random, material, box)
        bounds = limits or Limits()
        bounds = replace(bounds, seconds=bounds.seconds * _WORKS.get(trial.command.verb, 1))
        before = box.snapshot()
        outcome = material.children.run(trial.command, box.work, bounds)
        touched = [path for path in changed(before, box.snapshot()) if not _may_change(trial, path)]
        verdict = judge(outcome, bounds, touched, trial.command.verb)
        if verdict.kind is Kind.ACCEPTED and trial.proven is not None:
            verdict = _prove(trial, box, verdict)
        if verdict.kind is Kind.INTERNAL:
            verdict = locate(trial.command, material.children, box, verdict)
    return Finding(f"{area}:{number}", trial.what, str(trial.command), verdict, outcome)


def _prove(trial: Trial, box: Sandbox, verdict: Verdict) -> Verdict:
    """Turn `accepted` into a defect where the artifact is not what its manifest lists."""
    assert trial.proven is not None
    verb, other = trial.command.verb, folders.differing(box.work / MODEL, trial.proven)
    if trial.command != _VERIFY:  # the runtime proves what it reads; the dense layout of the weights it never opens
        other = [name for name in other if not name.endswith(".safetensors") and not name.startswith("reports/")]
    if other:
        return Verdict(Kind.CHANGED, f"{verb} with another {_class(other[0])}")
    if more := folders.unlisted(box.work / MODEL, trial.proven):
        return Verdict(Kind.CHANGED, f"{verb} with an unlisted {_class(more[0])}")
    return verdict


def _class(name: str) -> str:
    """Return what kind of file it is, for each to be counted once."""
    suffix = Path(name).suffix
    return f"{suffix} file" if suffix != ".json" else "tokenizer" if "token" in name else "JSON file"


def locate(command: Command, children: Children, box: Sandbox, verdict: Verdict) -> Verdict:
    """Return the verdict with the place inside vlmc, where the same error comes again."""
    again = Command((*command.argv, "--debug"), environment=command.environment, stdin=command.stdin)
    text = children.run(again, box.work).stderr
    return Verdict(verdict.kind, frame(text)) if "Traceback" in text else verdict


def _may_change(trial: Trial, path: str) -> bool:
    inside = path.removeprefix(f"{WORK}/")
    if inside == path:
        return False
    verb = trial.command.verb
    return trial.anywhere or any(inside == one or inside.startswith(f"{one}/") for one in _WRITES.get(verb, ()))


def _artifact(random: Random, material: Material, box: Sandbox) -> Trial:
    """An artifact with graphs: any file of it, or its folder; one time of three listed anew by whoever changed it."""
    source = material.model(random.choice(FAMILIES))
    model, manifest = box.take(source / MODEL), (source / MODEL / folders.MANIFEST).read_bytes()
    box.take(source / DENSE)
    box.take(material.images()[0], IMAGE)
    what, proven = folders.spoil_folder(random, model), manifest
    command = random.choices([_VERIFY, _INSPECT, _RUN, _LOAD, _EVAL], [4, 2, 2, 4, 1])[0]
    if random.random() < 0.33:
        folders.relist(model)
        return Trial(command, f"{what}, listed anew")
    return Trial(command, what, proven if command in PROVES else None)


def _manifest(random: Random, material: Material, box: Sandbox) -> Trial:
    source = material.model("llava")
    model = box.take(source / MODEL)
    box.take(source / DENSE)
    box.take(material.images()[0], IMAGE)
    return Trial(random.choices([_VERIFY, _INSPECT, _RUN, _EVAL], [3, 3, 2, 1])[0], folders.spoil_manifest(random, model))


def _adapter(random: Random, material: Material, box: Sandbox) -> Trial:
    """An artifact whose adapter waits to be merged."""
    source = material.adapted()
    model = box.take(source / ADAPTED, MODEL)
    box.take(source / DENSE)
    what = folders.spoil_folder(random, model)
    if random.random() < 0.5:
        folders.relist(model)
    merge = Command(("merge", MODEL, "--out", "out", "--quiet"))
    return Trial(random.choices([_VERIFY, _INSPECT, merge, _EVAL], [2, 2, 4, 1])[0], what)


def _dense(random: Random, material: Material, box: Sandbox) -> Trial:
    """A dense model's folder, which nothing vouches for."""
    dense = box.take(material.model(random.choice(FAMILIES)) / DENSE)
    prune = Command(("prune", DENSE, "--out", "out", "--calibration", "2", "--quiet"))
    looks = (Command(("inspect", DENSE)), Command(("verify-sparsity", DENSE, "--target", "2:4", "--json")))
    return Trial(random.choice([prune, *looks]), folders.spoil_folder(random, dense))


def _image(random: Random, material: Material, box: Sandbox) -> Trial:
    box.take(material.model(random.choice(FAMILIES)) / MODEL)
    content, what = spoil_image(random, random.choice(material.images()).read_bytes())
    (box.work / IMAGE).write_bytes(content)
    given = random.choice([IMAGE, content])
    asks = Command(call=partial(calls.answer, MODEL, given, QUESTION, {"max_new_tokens": 2}))
    return Trial(random.choice([Command(call=partial(calls.read_image, given)), asks, _RUN]), what)


def _data(random: Random, material: Material, box: Sandbox) -> Trial:
    """A data set of any form."""
    form, named = random.choice(list(material.data().items()))
    source = next(parent for parent in [named, *named.parents] if parent.parent.name == DATA)
    what = data_files.spoil_data(random, box.take(source, DATA))
    path = f"{DATA}/{named.relative_to(source)}" if named != source else DATA
    reads = Command(call=partial(calls.read_data, path))
    if random.random() < 0.8:
        return Trial(reads, f"{form}: {what}")
    box.take(material.model("llava") / DENSE)
    evaluates = Command(("eval", DENSE, "--data", path, "--count", "2", "--quiet"))
    prunes = Command(("prune", DENSE, "--data", path, "--out", "out", "--calibration", "2", "--quiet"))
    return Trial(random.choice([evaluates, prunes]), f"{form}: {what}")


def _prompt(random: Random, material: Material, box: Sandbox) -> Trial:
    box.take(material.model(random.choice(FAMILIES)) / MODEL)
    box.take(material.images()[0], IMAGE)
    marks = ("<image>", "</s>", "<s>", "<pad>", "{prompt}", "{images}", "<fake_token_around_image>", "<end_of_utterance>")
    words = [random.choice([*TEXTS, *marks, "what", "digit"]) for _ in range(random.choice([1, 2, 5, 60]))]
    text = random.choice(["", " "]).join(words)
    options = random.choice(
        [{}, {}, {"raw": True}, {"seed": -1}, {"seed": 2**64}, {"temperature": 1e-300}, {"top_p": 1e-300, "temperature": 1}]
    )
    if random.random() < 0.5:
        return Trial(
            Command(call=partial(calls.answer, MODEL, IMAGE, text, {"max_new_tokens": 2, **options})), ascii(text)[:200]
        )
    return Trial(Command(("run", MODEL, "--image", IMAGE, "--prompt", text, "--max-new-tokens", "2")), ascii(text)[:200])


def _options(random: Random, material: Material, box: Sandbox) -> Trial:
    source = material.model("llava")
    box.take(source / MODEL)
    box.take(source / DENSE)
    box.take(material.images()[0], IMAGE)
    argv, environment = option_sets.draw(random)
    return Trial(Command(argv, environment=environment), str(environment or ""), anywhere=True)


AREAS: Mapping[str, Callable[[Random, Material, Sandbox], Trial]] = {
    "artifact": _artifact,
    "manifest": _manifest,
    "adapter": _adapter,
    "dense": _dense,
    "image": _image,
    "data": _data,
    "prompt": _prompt,
    "options": _options,
}
"""What is spoiled; each draws a trial."""
