"""The six questions that every form of data set holds."""

import pytest

from tests.data import material
from tests.data.material import Asked


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    return material.six(tmp_path_factory.mktemp("six"))
