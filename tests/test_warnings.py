"""What vlmc is warned of fails the tests; what a third party warns of does not, unless every warning is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TESTS = """
import warnings

def warned_by(module):
    warnings.warn_explicit("old", FutureWarning, f"{module}.py", 1, module=module)

def test_vlmc(): warned_by("vlmc.toolchain.models.saved")
def test_own_tests(): warned_by("tests.runtime.test_model")
def test_third_party(): warned_by("transformers.models.llava")
def test_like_vlmc(): warned_by("vlmcx.models")
def test_listed(): warnings.warn_explicit("__array__ x", DeprecationWarning, "a.py", 1, module="numpy.core")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ([], {"test_vlmc", "test_own_tests"}),
        (["--every-warning"], {"test_vlmc", "test_own_tests", "test_third_party", "test_like_vlmc"}),
    ],
)
def test_whose_warnings_are_errors(options: list[str], failing: set[str], tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-rfp", "-n", "0"]
    command += ["-p", "no:cacheprovider", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {word: set() for word in ("FAILED", "PASSED")}
    for line in done.stdout.splitlines():
        word, _, test = line.partition(" ")
        if word in found:
            found[word].add(test.partition("::")[2].split()[0])
    every = {"test_vlmc", "test_own_tests", "test_third_party", "test_like_vlmc", "test_listed"}
    assert found == {"FAILED": failing, "PASSED": every - failing}, done.stdout
