"""What `vlmc serve` makes of its options."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmc.runtime.serving import Limits, start
from vlmc.toolchain.cli.main import run


def test_megabytes_are_bytes_and_the_rest_is_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def serve(artifacts: list[Path], *, tell: Callable[..., None], **options: Any) -> None:
        given.update(options, artifacts=artifacts)

    monkeypatch.setattr(start, "serve", serve)
    monkeypatch.delenv("VLMC_API_KEY", raising=False)
    assert run(["serve", "a", "--beside", "b", "--image-cache", "1.5", "--max-body", "2", "--timeout", "9", "--quiet"]) == 0
    assert given["artifacts"] == [Path("a"), Path("b")]
    assert given["vision_bytes"] == 1_500_000
    assert given["limits"] == Limits(512, 9.0, body=2_000_000)
    assert (given["key"], given["remote"], given["log"]) == (None, False, False)
    assert {name: given[name] for name in ("host", "port", "threads", "max_batch", "max_queue")} == {
        "host": "127.0.0.1",
        "port": 8000,
        "threads": 0,
        "max_batch": 8,
        "max_queue": 64,
    }


def test_a_cache_of_less_than_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "a", "--image-cache", "-1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
