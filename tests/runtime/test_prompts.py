"""Prompts that cannot fit into a model are refused before they are split into tokens."""

import pytest

from tests.runtime.conftest import Reference
from vlmc.runtime.errors import InputError
from vlmc.runtime.model import Model
from vlmc.runtime.prompts import check_length
from vlmc.runtime.text import Text


def test_the_length_is_bounded_by_the_positions(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reference.folder
    monkeypatch.setattr(Text, "encode", lambda *_: pytest.fail("it was split into tokens"))
    with (
        Model.from_graphs(folder, reference.deployment, folder / "onnx") as model,
        pytest.raises(InputError, match=r"the prompt has 10,000,000 characters, .* room for \d+ tokens: ask a shorter"),
    ):
        model.generate(b"", "a" * 10_000_000)


def test_a_model_without_a_limit_takes_no_book_either() -> None:
    check_length("a" * 1_000_000, None)
    with pytest.raises(InputError, match="the prompt has 4,000,001 characters: ask a shorter question"):
        check_length("a" * 4_000_001, None)
