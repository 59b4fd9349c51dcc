"""The six questions that every form of data set holds."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.data.material import Asked


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> "list[Asked]":
    from tests.data import material  # needs pyarrow, which not every test of this folder does

    return material.six(tmp_path_factory.mktemp("six"))
