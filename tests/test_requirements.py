"""requirements/ holds what pyproject.toml allows and all that it names, and nothing of the machine it was written on."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
MACHINE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
NOT_LOCKED = {"engines", "gpu", "tensorrt"}  # other builds of what cpu and tensorrt-rtx bring, for machines with a GPU
BROUGHT_BY_TORCH = {
    "cuda-bindings",
    "torch",
    "triton",
}  # requirements/oldest.txt leaves them to the machine: see CONTRIBUTING.md


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct(extra: str = "dev") -> dict[str, Requirement]:
    """Return what vlmc and an extra of it need by name, extras of vlmc that the extra names included."""
    project = pyproject()["project"]
    found: dict[str, Requirement] = {}
    for line in (*project["dependencies"], *project["optional-dependencies"][extra]):
        requirement = Requirement(line)
        if requirement.name == "vlmc":
            for other in requirement.extras:
                found |= direct(other)
        elif requirement.marker is None or requirement.marker.evaluate(MACHINE):
            found[canonicalize_name(requirement.name)] = requirement
    return found


def pins(name: str) -> dict[str, Version]:
    """Return the versions by package; a line that is neither a comment nor `package==version` fails."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)", line) for line in lines if not line.startswith("#")]
    return {match[1]: Version(match[2]) for match in found if match}


@pytest.mark.parametrize("name", ["lock.txt", "oldest.txt"])
def test_nothing_but_packages_and_versions(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert re.fullmatch(r"(# [^/]*\n)+([a-z0-9-]+==[0-9a-z.]+\n)+", text)


def test_every_extra_is_locked_but_those_that_need_a_gpu() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    named = {name for extra in extras if extra not in NOT_LOCKED for name in direct(extra)}
    assert named == set(direct())


def test_the_lock_is_in_the_ranges() -> None:
    lock, needed = pins("lock.txt"), direct()
    assert set(needed) <= set(lock)
    assert not [str(one) for name, one in needed.items() if lock[name] not in one.specifier]
    backend = Requirement(pyproject()["build-system"]["requires"][0])
    assert lock[backend.name] in backend.specifier


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest, needed = pins("oldest.txt"), direct()
    assert set(needed) - set(oldest) == BROUGHT_BY_TORCH
    for name in set(needed) & set(oldest):
        bound = next(part.version for part in needed[name].specifier if part.operator == ">=")
        assert oldest[name] == Version(bound), name


def needs(name: str, lock: dict[str, Version]) -> Iterator[Requirement]:
    """Yield what a package needs here, if the version that is installed is the locked one."""
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return
    if Version(Version(installed.version).public) == lock[name]:
        requirements = (Requirement(line) for line in installed.requires or [])
        yield from (one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""}))


@pytest.mark.integration
def test_the_lock_is_whole() -> None:
    """What a locked package needs is locked too, in a version that it can work with."""
    lock = pins("lock.txt")
    wrong = [
        f"{name} needs {one}"
        for name in lock
        for one in needs(name, lock)
        if canonicalize_name(one.name) not in lock or lock[canonicalize_name(one.name)] not in one.specifier
    ]
    assert not wrong
