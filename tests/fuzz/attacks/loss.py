"""Attacks on the user's files: neighbouring folders, two commands at once, links that lead out of an artifact."""

import json
import shutil
from pathlib import Path

from tests.fuzz.attacks.attempt import PATIENT, Attack, Attempt
from tests.fuzz.commands import Command, Death
from tests.fuzz.judging import Kind

_QUICK = ("--calibration", "2", "--method", "magnitude", "--quiet")
_TRAIN = ("--steps", "1", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2", "--quiet")
_SIBLINGS = ("work", "partial", "previous", "blocks", "checkpoints")


def compress_beside_folders_of_the_user(attempt: Attempt) -> None:
    """compress --out art leaves the user's own art.work, art.partial, art.previous."""
    attempt.dense()
    _beside_each(attempt, "compress", "dense", "--repair", "none", *_QUICK)


def prune_beside_folders_of_the_user(attempt: Attempt) -> None:
    """prune --out p leaves the user's own p.blocks, p.partial, p.previous."""
    attempt.dense()
    _beside_each(attempt, "prune", "dense", *_QUICK)


def repair_beside_folders_of_the_user(attempt: Attempt) -> None:
    """repair --out r leaves the user's own r.checkpoints."""
    attempt.artifact()
    _beside_each(attempt, "repair", "model", *_TRAIN)


def force_beside_folders_of_the_user(attempt: Attempt) -> None:
    """--force replaces the artifact, and none of the user's folders beside it."""
    attempt.dense()
    for verb in ("prune", "compress"):
        command = (verb, "dense", *_QUICK, *(("--repair", "none") if verb == "compress" else ()))
        attempt.run(*command, "--out", verb, wanted="done")
        for ending in _SIBLINGS:
            attempt.box.foreign(f"{verb}.{ending}")
        attempt.run(*command, "--out", verb, "--force")


def export_beside_a_folder_of_the_user(attempt: Attempt) -> None:
    """export leaves a folder of the user's inside the artifact that is named as its own draft."""
    model = attempt.artifact()
    attempt.box.foreign(f"{model.name}/.onnx.partial")
    attempt.run("export", "model", "--quiet", limits=PATIENT)


def eval_and_export_at_once(attempt: Attempt) -> None:
    """eval and export of one artifact at a time leave it whole."""
    attempt.artifact()
    commands = (Command(("eval", "model", "--count", "40", "--quiet")), Command(("export", "model", "--quiet")))
    done = [one.code == 0 for one in attempt.run_together(*commands)]
    _is_whole(attempt, "model")
    listed = json.loads((attempt.box.work / "model" / "manifest.json").read_text())["files"]
    attempt.expect(not done[0] or "reports/eval.json" in listed, Kind.LOST, "an evaluation, by an export at the same time")
    attempt.expect(not done[1] or "onnx/deployment.json" in listed, Kind.LOST, "graphs, by an evaluation at the same time")


def two_exports_at_once(attempt: Attempt) -> None:
    """Two exports into one artifact at a time leave it whole, with graphs."""
    attempt.artifact()
    attempt.run_together(*[Command(("export", "model", "--quiet"))] * 2)
    _is_whole(attempt, "model")


def two_compress_at_once(attempt: Attempt) -> None:
    """Of two compress into one --out one is done, and the other one refused in a line, or done as well."""
    attempt.dense()
    argv = ("compress", "dense", "--repair", "none", "--out", "art", *_QUICK)
    outcomes = attempt.run_together(*[Command(argv)] * 2)
    attempt.expect(any(one.code == 0 for one in outcomes), Kind.LOST, "two compress at once: neither is done")
    attempt.run("verify-sparsity", "art", "--quiet", wanted="done")


def reports_lead_outside(attempt: Attempt) -> None:
    """reports -> ../elsewhere: eval writes no file there."""
    model, elsewhere = attempt.artifact(), attempt.box.foreign("elsewhere")
    (elsewhere / "eval.json").write_text("mine")
    shutil.rmtree(model / "reports", ignore_errors=True)
    (model / "reports").symlink_to("../elsewhere")
    attempt.run("eval", "model", "--count", "2", "--quiet")
    attempt.expect((elsewhere / "eval.json").read_text() == "mine", Kind.OUTSIDE, "eval through a link at reports")


def report_leads_outside(attempt: Attempt) -> None:
    """reports/eval.json -> a file of the user's: eval leaves that file as it is."""
    model, elsewhere = attempt.artifact(), attempt.box.foreign("elsewhere")
    (elsewhere / "mine.json").write_text("mine")
    (model / "reports").mkdir(exist_ok=True)
    (model / "reports" / "eval.json").unlink(missing_ok=True)
    (model / "reports" / "eval.json").symlink_to("../../elsewhere/mine.json")
    attempt.run("eval", "model", "--count", "2", "--quiet")
    attempt.expect((elsewhere / "mine.json").read_text() == "mine", Kind.OUTSIDE, "eval through a link at reports/eval.json")


def graphs_lead_outside(attempt: Attempt) -> None:
    """onnx -> ../elsewhere: a second export is done or refused, and the artifact has its graphs after it."""
    model, elsewhere = attempt.artifact(), attempt.box.foreign("elsewhere")
    shutil.move(model / "onnx", elsewhere / "onnx")
    (model / "onnx").symlink_to("../elsewhere/onnx")
    before = _names(elsewhere)
    for _ in range(2):
        attempt.run("export", "model", "--quiet", limits=PATIENT)
    attempt.expect(_names(elsewhere) == before, Kind.OUTSIDE, "export through a link at onnx")
    attempt.run("run", "model", "--image", "p.png", "--prompt", "what ?", wanted="done", kind=Kind.LOST)


def out_is_a_link(attempt: Attempt) -> None:
    """--out LINK --force: the link stays a link, and the same command is done again."""
    attempt.dense()
    command = ("compress", "dense", "--repair", "none", *_QUICK)
    attempt.run(*command, "--out", "real", wanted="done")
    (attempt.box.work / "link").symlink_to("real")
    for _ in range(2):
        attempt.run(*command, "--out", "link", "--force")
        attempt.expect((attempt.box.work / "link").is_symlink(), Kind.LOST, "compress --out LINK --force replaces the link")
    _is_whole(attempt, "real")


def failed_export_keeps_the_graphs(attempt: Attempt) -> None:
    """An export that is interrupted while it puts its graphs in place leaves the old ones or the new ones."""
    attempt.artifact()
    whole = attempt.run("export", "model", "--quiet", wanted="done", limits=PATIENT)
    for back in (1, 2, 3):
        death = Death(before=max(1, whole.changes - back))
        attempt.material.children.run(Command(("export", "model", "--quiet"), death=death), attempt.box.work, PATIENT)
        ran = attempt.run("run", "model", "--image", "p.png", "--prompt", "what ?")
        attempt.expect(ran.code == 0, Kind.LOST, "the graphs, after an export that was killed")


def killed_demo_data(attempt: Attempt) -> None:
    """What a killed demo-data left is gone after the next one."""
    argv = ("demo-data", "questions", "--count", "3", "--quiet")
    for before in (2, 3, 4):
        attempt.material.children.run(Command(argv, death=Death(before=before)), attempt.box.work)
    attempt.run(*argv, "--force", wanted="done")
    left = [path.name for path in attempt.box.work.iterdir() if path.name not in {"questions", ".cache"}]
    attempt.expect(not left, Kind.LOST, "what a killed demo-data left stays for good")


ATTACKS: tuple[Attack, ...] = (
    compress_beside_folders_of_the_user,
    prune_beside_folders_of_the_user,
    repair_beside_folders_of_the_user,
    force_beside_folders_of_the_user,
    export_beside_a_folder_of_the_user,
    eval_and_export_at_once,
    two_exports_at_once,
    two_compress_at_once,
    reports_lead_outside,
    report_leads_outside,
    graphs_lead_outside,
    out_is_a_link,
    failed_export_keeps_the_graphs,
    killed_demo_data,
)


def _beside_each(attempt: Attempt, *argv: str) -> None:
    """Write to one place after the other, each beside one folder of the user's."""
    for ending in _SIBLINGS:
        attempt.box.foreign(f"{ending}.{ending}")
        attempt.run(*argv, "--out", ending, limits=PATIENT)


def _is_whole(attempt: Attempt, name: str) -> None:
    found = attempt.run("inspect", name, "--quiet")
    attempt.expect(found.code == 0, Kind.LOST, f"{name} is refused after it: {found.stderr[:80]}")
    if (attempt.box.work / name / "onnx").exists():
        attempt.run("run", name, "--image", "p.png", "--prompt", "what ?", wanted="done")


def _names(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
