"""A real tritonserver loads the repository in an artifact, and answers over HTTP and gRPC as the model itself does."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pico
from tests.artifacts import exported
from vlmc.runtime import Message, load
from vlmc.runtime.artifact import Artifact
from vlmc.toolchain.stages.export import write_repository

pytestmark = pytest.mark.slow

START = 180.0  # seconds
TOKENS = 12
QUESTION = pico.QUESTIONS[0]


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with nvidia-pytriton, which carries a tritonserver, and tritonclient: both want numpy 1, vlmc numpy 2."""
    folder = Path(os.environ.get("VLMC_TRITON", "none"))
    if not (folder / "pytriton/tritonserver/bin/tritonserver").is_file():
        pytest.skip("needs VLMC_TRITON=FOLDER, made by pip install --target FOLDER nvidia-pytriton 'tritonclient[all]'")
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a repository, away from where it was made."""
    folder = tmp_path_factory.mktemp("served") / "artifact"
    shutil.copytree(exported("llava", tmp_path_factory.getbasetemp()), folder)
    write_repository(Artifact.open(folder))
    return folder


@pytest.fixture(scope="module")
def ports(packages: Path, artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    folder = tmp_path_factory.mktemp("triton")
    http, grpc = free_port(), free_port()
    backends, python = folder / "backends", environment(packages, folder / "python")
    server = packages / "pytriton/tritonserver"
    shutil.copytree(server / "backends/python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / f"python_backend_stubs/{version}/triton_python_backend_stub", backends / "python")
    given = {"backend-directory": backends, "model-repository": artifact / "triton", "http-port": http, "grpc-port": grpc}
    given |= {"http-address": "127.0.0.1", "grpc-address": "127.0.0.1", "allow-metrics": "false"}
    command = [str(server / "bin/tritonserver"), *(f"--{name}={value}" for name, value in given.items())]
    settings = {"PATH": f"{python}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ | settings)
    try:
        wait(process, http, folder / "log")
        yield http, grpc
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0, (folder / "log").read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def environment(packages: Path, folder: Path) -> Path:
    """Make a Python for the server: this one's packages, with the numpy that the server's backend was built for."""
    venv.create(folder, with_pip=False)
    (folder / "numpy").mkdir()
    for name in ("numpy", "numpy.libs"):
        (folder / "numpy" / name).symlink_to(packages / name)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    here = sysconfig.get_paths()["purelib"]
    (Path(paths["purelib"]) / "vlmc.pth").write_text(f"{folder / 'numpy'}\nimport site; site.addsitedir({here!r})\n")
    return Path(paths["scripts"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.2)


def test_http_grpc_and_the_stream_answer_as_the_model_does(ports: tuple[int, int], packages: Path, artifact: Path) -> None:
    buffer = io.BytesIO()
    pico.picture(0).save(buffer, "png")
    image = buffer.getvalue()
    with load(artifact, threads=1) as model:  # what Triton compiled in the repository is no damage
        answer = model.chat([Message("user", [image, QUESTION])], max_new_tokens=TOKENS)
    program = [sys.executable, str(Path(__file__).with_name("asking.py")), *map(str, (*ports, TOKENS)), QUESTION]
    settings = os.environ | {"PYTHONPATH": str(packages)}
    done = subprocess.run(program, input=image, capture_output=True, env=settings, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    expected = {"text": answer.text, "tokens": len(answer.tokens), "finish": answer.finish}
    assert found["http"] == found["grpc"] == expected
    for way in ("http", "grpc"):
        refused = found[f"{way} refuses"]
        assert "is not an image that can be read" in refused["image"]
        assert "prompt is not UTF-8" in refused["prompt"]
        assert "max_new_tokens is 0: give at least 1" in refused["tokens"]
        assert all(one.startswith(("400", "StatusCode.INVALID_ARGUMENT")) for one in refused.values())
    *pieces, end = found["pieces"]
    assert len(pieces) > 1
    assert "".join(one["text"] for one in pieces) == answer.text
    assert end == expected | {"text": ""}
