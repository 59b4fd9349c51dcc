"""What is installed is what is in the repo: a forgotten subpackage would vanish from the wheel in silence."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("runtime", "exporters", "toolchain")


def packages() -> set[str]:
    """Every folder with an __init__.py, by its installed name."""
    found = (path.parent.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py"))
    return {".".join(("vlmc", *folder.parts)) for folder in found}


def tracked(*folders: str) -> list[Path]:
    """Return what git knows of the folders, of the repository where none is named, by paths inside it."""
    done = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def test_the_package_list_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages()


def test_the_list_of_data_files_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]
    listed = {
        path.relative_to(ROOT)
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package.removeprefix("vlmc.").replace(".", "/")).glob(pattern)
    }
    there = {path for path in tracked(*FOLDERS) if path.suffix != ".py"}
    assert there
    assert there <= listed


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_model(tmp_path: Path) -> None:
    for path in tracked():
        if (ROOT / path).is_file() and path.parts[0] != ".types":
            (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tmp_path / "source" / path)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=tmp_path / "source", check=True)
    with ZipFile(next(tmp_path.glob("vlmc-*.whl"))) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info" not in name}
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    expected = {f"vlmc/{path}" for path in tracked(*FOLDERS)}
    built = shipped - expected
    assert expected <= shipped
    assert {Path(name).parent.as_posix() for name in built} <= {"vlmc/runtime/kernels"}
    assert len(built) == (shutil.which("c++") is not None)
    assert "vlmc/toolchain/demo/models/demo/model.safetensors" in shipped
    bare = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert bare
    assert not any("onnxruntime" in line for line in bare), "its two packages spoil each other: cpu and gpu choose"


def test_make_clean_removes_nothing_that_is_tracked() -> None:
    command = ["make", "--no-print-directory", "-n", "clean"]  # a make that runs the tests would have it say where it is
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert recipe[:2] == ["rm", "-rf"]
    assert ".venv" in recipe
    assert tracked(*recipe[2:]) == []


def test_sanitizers_are_skipped_with_a_line_where_there_is_no_compiler() -> None:
    command = ["make", "--no-print-directory", "CXX=no-such-compiler", "sanitize"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "sanitize: skipped, the kernels need a C++ compiler and there is no no-such-compiler: install g++\n"


def test_what_make_and_the_verbs_write_is_ignored() -> None:
    written = [".venv", ".venv-latest", ".venv-oldest", "demo-output", "artifact", "artifact.work", "pruned", "split-study"]
    paths = [f"{folder}/file" for folder in written]
    ignored = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == paths


def test_runtime_is_pinned() -> None:
    import vlmc.runtime

    assert vlmc.runtime.__version__
    assert {"load", "Model"} <= set(vlmc.runtime.__all__)
