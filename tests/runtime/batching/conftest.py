"""Models that the tests of the batcher ask."""

from collections.abc import Iterator

import pytest

from vlmc.runtime import Model


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    from tests.runtime.conftest import refer

    made = refer("llava", tmp_path_factory.getbasetemp())
    forever = made.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(made.folder, forever, made.folder / "onnx", threads=1) as model:
        yield model
