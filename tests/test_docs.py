"""What the documents name is there: files, names in files, chapters, commands and their flags."""

import re
from functools import cache
from pathlib import Path

import pytest
import typer

from tests.test_packaging import ROOT, tracked
from vlmc.toolchain.cli.app import app

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
FOREIGN = {"--fsdp", "--cpu", "--every-warning"}  # accelerate's and pytest's
SPAN = re.compile(r"`([^`\n]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@cache
def files() -> frozenset[str]:
    """Every file and folder that git knows, folders with a slash at their end."""
    paths = [path for path in tracked() if (ROOT / path).exists()]
    return frozenset({str(path) for path in paths} | {f"{parent}/" for path in paths for parent in path.parents})


@cache
def verbs() -> dict[str, set[str]]:
    """Every verb of `vlmc` with its flags, of an option that is on or off both."""
    group = typer.main.get_command(app)
    return {
        name: {"--help", *(flag for option in verb.params for flag in (*option.opts, *option.secondary_opts))}
        for name, verb in group.commands.items()  # type: ignore[attr-defined]
    }


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """Return the spans of code and the lines of code blocks, comments cut off."""
    lines = [line.partition(" #")[0].strip() for line in text(page).splitlines() if line.startswith("    ")]
    return [*SPAN.findall(text(page)), *lines]


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    top = {path.partition("/")[0] for path in files() if "/" in path} - {"."}
    spans = [span for span in SPAN.findall(text(page)) if re.fullmatch(r"[\w./-]+", span)]
    paths = {span for span in spans if span.partition("/")[0] in top and "/" in span}
    assert {path for path in paths if path not in files() and f"{path}/" not in files()} == set()
    bare = {span for span in spans if re.fullmatch(r"\w+\.py", span)}
    assert bare <= {Path(path).name for path in files()}


@pytest.mark.parametrize("page", PAGES)
def test_names_that_are_said_to_be_in_a_file_are_in_it(page: str) -> None:
    flat = " ".join(text(page).split())
    for name, path in re.findall(r"`(\w+)` in `([\w./]+\.py)`", flat):
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{name} is not in {path}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve().relative_to(ROOT) if path else Path(page)
        assert (ROOT / file).exists(), target
        assert not anchor or anchor in anchors(str(file)), target


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_flags_that_they_are_given(page: str) -> None:
    known = set().union(*verbs().values()) | FOREIGN
    known |= {flag for path in files() if path.startswith("benchmarks/") and path.endswith(".py") for flag in flags(path)}
    for command in commands(page):
        if found := re.match(r"(?:vlmc|.* -m vlmc\.toolchain\.cli) ([a-z-]+)", command):
            assert found[1] in verbs(), command
            assert set(FLAG.findall(command.partition(f" {found[1]}")[2])) <= verbs()[found[1]], command
        elif found := re.match(r"python (benchmarks/\w+\.py)", command):
            assert found[1] in files(), command
            assert set(FLAG.findall(command)) <= flags(found[1]), command
        elif command.startswith("--"):
            assert set(FLAG.findall(command)) <= known, command


@cache
def flags(script: str) -> set[str]:
    """Every flag that a benchmark's script mentions, and those that all of them share."""
    return set(FLAG.findall(text(script))) | set(FLAG.findall(text("benchmarks/report.py")))
