"""What a dense model's card says, and what is not taken from it."""

import os
from pathlib import Path

import pytest

from vlmc.toolchain.models.source_card import said


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: apache-2.0\nbase_model: a/b", {"license": "apache-2.0", "base_model": ["a/b"]}),
        ("license: [mit]\nbase_model: /home/me/model", {}),
        ("license: 'x\"\\ny: z'", {}),
        ("license_link: javascript:alert(1)\nlicense_name: <script>", {}),
        ("license_link: /root/LICENSE", {}),
        ("a: &a [x, x]\nlicense: *a", {}),
        ("- a\n- list", {}),
        ("[" * 5000, {}),
        ("license: : :", {}),
    ],
)
def test_only_names_and_links_are_taken(tmp_path: Path, front: str, expected: dict[str, object]) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nlicense: mit\n")
    assert said(tmp_path) == expected


def test_a_card_that_is_none_says_nothing(tmp_path: Path) -> None:
    assert said(tmp_path) == {}
    os.mkfifo(tmp_path / "README.md")
    assert said(tmp_path) == {}
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").write_bytes(b"\xff\xfe---\nlicense: mit\n---\n")
    assert said(tmp_path) == {}
