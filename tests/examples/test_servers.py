"""The examples of other servers answer over HTTP as the model itself does."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests import pico
from tests.artifacts import exported
from tests.test_packaging import ROOT
from vlmc.runtime import load

pytestmark = pytest.mark.slow
QUESTION = pico.QUESTIONS[0]
START = 120.0  # seconds; Ray starts processes of its own


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("llava", tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def image() -> bytes:
    buffer = io.BytesIO()
    pico.picture(0).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def expected(artifact: Path, image: bytes) -> str:
    with load(artifact, threads=1) as model:
        return model.generate(image, QUESTION, max_new_tokens=64).text


@contextmanager
def example(name: str, artifact: Path, folder: Path) -> Iterator[str]:
    """Run an example; yield its URL once something listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples" / name), str(artifact), str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=os.environ)
    try:
        end = time.monotonic() + START
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End an example, and what it started if that does not end with it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_fastapi_in_forty_lines(artifact: Path, image: bytes, expected: str, tmp_path: Path) -> None:
    assert len((ROOT / "examples/fastapi_server.py").read_text().splitlines()) <= 40
    with example("fastapi_server.py", artifact, tmp_path) as url:
        answered = httpx2.post(f"{url}/ask", params={"question": QUESTION}, content=image, timeout=30)
        assert (answered.status_code, answered.json()["answer"]) == (200, expected)
        wrong = httpx2.post(f"{url}/ask", params={"question": QUESTION}, content=b"no image", timeout=30)
        assert wrong.status_code == 422
        assert "is not an image" in wrong.json()["detail"]


def test_litserve(artifact: Path, image: bytes, expected: str, tmp_path: Path) -> None:
    pytest.importorskip("litserve", reason="needs pip install litserve")
    with example("litserve_server.py", artifact, tmp_path) as url:
        asked = {"question": QUESTION, "image": base64.b64encode(image).decode()}
        assert httpx2.post(f"{url}/predict", json=asked, timeout=60).json()["answer"] == expected
        asked["image"] = base64.b64encode(b"no image").decode()
        assert "is not an image" in httpx2.post(f"{url}/predict", json=asked, timeout=60).json()["error"]


def test_ray_serve_answers_from_two_replicas(artifact: Path, image: bytes, expected: str, tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="needs pip install 'ray[serve]'")
    with example("ray_serve.py", artifact, tmp_path) as url:
        end = time.monotonic() + START
        while not (first := httpx2.get(f"{url}/-/healthz", timeout=60)).is_success:
            assert time.monotonic() < end, first.text
            time.sleep(0.5)
        params = {"question": QUESTION}
        found = [httpx2.post(url, params=params, content=image, timeout=60).json() for _ in range(40)]
        assert {one["answer"] for one in found} == {expected}
        assert len({one["replica"] for one in found}) == 2
        assert httpx2.post(url, params=params, content=b"no image", timeout=60).status_code == 422
