"""What is installed is what is in the repo: a forgotten subpackage would vanish from the wheel in silence."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent
FOLDERS = ("runtime", "exporters", "toolchain")


def packages() -> set[str]:
    """Every folder with an __init__.py, by its installed name."""
    found = (path.parent.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py"))
    return {".".join(("vlmc", *folder.parts)) for folder in found}


def test_the_package_list_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages()


def test_the_wheel_holds_every_module_and_model(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(".types"):
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=tmp_path / "source", check=True)
    with ZipFile(next(tmp_path.glob("vlmc-*.whl"))) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info" not in name}
    expected = {f"vlmc/{name}" for name in listed if name.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    assert shipped == expected
    assert "vlmc/toolchain/demo/models/demo/model.safetensors" in shipped


def test_runtime_is_pinned() -> None:
    import vlmc.runtime

    assert vlmc.runtime.__version__
    assert {"load", "Model"} <= set(vlmc.runtime.__all__)
