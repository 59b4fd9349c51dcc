"""`vlmc serve`: started, asked, and ended by a signal, with everything answered that was asked before."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.runtime.serving.conftest import Held
from tests.runtime.serving.material import SOON, Slow, answer, asked, connected, running, until
from vlmc.runtime.errors import Closed
from vlmc.runtime.serving import Served, bind
from vlmc.runtime.serving import running as ending
from vlmc.runtime.serving.served import names
from vlmc.toolchain.cli.main import run

SERVE = [sys.executable, "-m", "vlmc.toolchain.cli", "serve"]


@contextmanager
def served(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[tuple[Any, "subprocess.Popen[str]"]]:
    """Run `vlmc serve`; yield what it says it serves, and its process."""
    process = subprocess.Popen(
        [*SERVE, *arguments, "--json", "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line), process
    finally:
        process.kill()
        process.communicate()


def post(url: str, **changed: object) -> httpx2.Response:
    headers = {"Authorization": "Bearer secret"}
    return httpx2.post(f"{url}/v1/chat/completions", json=asked(**changed), headers=headers, timeout=SOON)


@pytest.mark.slow
def test_it_serves_two_models_and_ends_when_it_is_told(artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact, tmp_path / "twin")
    given = (str(artifact), "--beside", str(tmp_path / "twin"), "--max-tokens", "40", "--quiet")
    with served(*given, environment={"VLMC_API_KEY": "secret"}) as (said, process):
        assert said["models"] == {artifact.name: "2:4", "twin": "2:4"}
        answers = [post(said["url"], model=name).json()["choices"] for name in said["models"]]
        assert answers[0] == answers[1]
        assert httpx2.get(f"{said['url']}/v1/models").status_code == 401
        with ThreadPoolExecutor(24) as pool:
            asking = [pool.submit(post, said["url"], model="twin") for _ in range(24)]
            until(lambda: any(one.done() for one in asking))
            process.send_signal(signal.SIGTERM)
            ended = [one.exception() or one.result().status_code for one in asking]
        assert process.wait(SOON) == 0
        assert process.communicate() == ("", "")
    refused = [end for end in ended if end not in (200, 503)]
    assert 200 in ended
    assert all(isinstance(end, httpx2.ConnectError) for end in refused), refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_asked_is_answered_and_nothing_else_is_let_in(held: Held, number: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(post, held.url)
        until(lambda: len(held.batcher.asked) == 1)
        held.server.handle_exit(number, None)
        time.sleep(0.3)
        for refused in (post(held.url), httpx2.get(f"{held.url}/ready")):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.json()["error"]["code"] == "closing"
        assert httpx2.get(f"{held.url}/health").status_code == 200
        held.batcher.asked[0].end(answer("whole"))
        assert asking.result(SOON).json()["choices"][0]["message"]["content"] == "whole"
    until(lambda: held.server.should_exit)


def test_a_second_signal_ends_it_at_once(held: Held) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(post, held.url)
        until(lambda: len(held.batcher.asked) == 1)
        held.server.handle_exit(signal.SIGINT, None)
        held.server.handle_exit(signal.SIGINT, None)
        until(lambda: held.server.should_exit)
        held.batcher.asked[0].end(Closed("closed"))
        assert asking.result(SOON).status_code == 503


def test_who_was_connected_before_the_end_is_told_of_it(held: Held) -> None:
    with ThreadPoolExecutor(1) as pool, connected(held) as connection:
        asking = pool.submit(post, held.url)
        until(lambda: len(held.batcher.asked) == 1)
        held.server.handle_exit(signal.SIGTERM, None)
        held.batcher.asked[0].end(answer())
        assert asking.result(SOON).status_code == 200
        time.sleep(1)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 503")


def test_who_waits_to_be_connected_when_the_server_ends_is_told_of_it(held: Held) -> None:
    connections: list[socket.socket] = []

    def end_with_a_backlog() -> None:
        connections.extend(connected(held) for _ in range(20))
        for connection in connections:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        held.server.handle_exit(signal.SIGTERM, None)
        held.server._ending = asyncio.get_running_loop().create_task(held.server._end())

    asyncio.run_coroutine_threadsafe(_run(end_with_a_backlog), held.server.servers[0].get_loop()).result(SOON)
    for connection in connections:
        with connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 503")
    until(lambda: held.server.should_exit)
    with pytest.raises(ConnectionRefusedError):
        connected(held)


async def _run(work: Callable[[], None]) -> None:
    work()


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_LAST", 0.1)
    with running({"pico": Served(Slow())}) as server, ThreadPoolExecutor(1) as pool:
        server.server._seconds, server.server.config.timeout_graceful_shutdown = 0.2, 0
        asking = pool.submit(post, server.url)
        until(lambda: server.application.gate.inside == 1)
        server.server.handle_exit(signal.SIGTERM, None)
        until(lambda: server.server.should_exit)
        asking.cancel()


def test_a_port_that_is_taken_is_told(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1", 0, 1) as bound:
        bound.listen()
        assert run(["serve", str(artifact), "--port", str(bound.getsockname()[1])]) == 2
    assert "choose another --host or --port" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.example"])
def test_a_host_that_is_not_this_machine_is_told(artifact: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", str(artifact), "--host", host, "--port", "0"]) == 2
    assert f"{host}:0 is not to be had" in capsys.readouterr().err


def test_what_cannot_be_served_is_told(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*given: object) -> str:
        assert run(["serve", *map(str, given), "--port", "0"]) == 2
        return capsys.readouterr().err

    assert "no artifact at" in told(tmp_path / "none")
    assert "given twice" in told(artifact, "--beside", artifact)
    assert "--api-key" in told(artifact, "--api-key", "with space")
    assert "--max-batch 0" in told(artifact, "--max-batch", "0")
    shutil.copytree(artifact, tmp_path / "damaged")
    with (tmp_path / "damaged/onnx/deployment.json").open("r+b") as file:
        file.write(b" ")
    assert "deployment.json" in told(tmp_path / "damaged")


def test_names_tell_artifacts_apart() -> None:
    paths = [Path("/runs/a/artifact"), Path("/runs/b/artifact"), Path("/runs/b/other")]
    assert names(paths[:1]) == ["artifact"]
    assert names(paths) == ["a/artifact", "b/artifact", "b/other"]


@pytest.mark.integration
def test_embedding_the_runtime_imports_nothing_of_the_server(artifact: Path) -> None:
    code = (
        "import sys\nfrom vlmc.runtime import load, Batcher\n"
        "with load(sys.argv[1], threads=1) as model, Batcher(model): pass\n"
        "sys.exit(' '.join({'fastapi', 'starlette', 'uvicorn', 'prometheus_client', 'httpcore2'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
def test_serving_imports_no_torch(artifact: Path) -> None:
    code = (
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\nfrom pathlib import Path\n"
        "from vlmc.runtime.serving import Application, Limits, opened\n"
        "with opened([Path(sys.argv[1])], threads=1) as models: Application(models, Limits()).close()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
def test_a_package_that_is_missing_is_named(artifact: Path) -> None:
    code = "import sys\nsys.modules['prometheus_client'] = None\nfrom vlmc.toolchain.cli import main\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", code, "serve", str(artifact), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "vlmc: prometheus-client is not installed: pip install 'vlmc[serve]'\n"
