"""What a token's packed products are predicted to take: those of the model, all of them, over and over."""

from typing import Any

import pytest

from tests.runtime.kernels.material import needs_library
from vlmc.toolchain.bench import predicting
from vlmc.toolchain.bench.predicting import is_predicted, packed_seconds

PRODUCTS = [(32, 64, True), (64, 32, True), (48, 64, False), (32, 64, True)]


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "READ", 1 << 20)


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The products that are computed: outputs, inputs, whether dense, where the weight lies, part and parts."""
    found: list[tuple[int, ...]] = []

    def run(one: Any, *, part: int, parts: int) -> None:
        found.append((one.outputs, one.inputs, one.dense, one.values, part, parts))

    monkeypatch.setattr(predicting, "run", run)
    return found


def test_a_decoder_that_a_cache_holds_is_not_predicted() -> None:
    assert not is_predicted([(512, 512, True)])
    assert is_predicted([(1 << 13, 1 << 12, True), (1 << 13, 1 << 12, False)])


@needs_library
def test_a_pass_is_every_product_in_turn_with_a_weight_of_its_own(multiplied: list[tuple[int, ...]]) -> None:
    packed_seconds("bf16", PRODUCTS, 1)
    one = [(outputs, inputs, int(not sparse)) for outputs, inputs, sparse in PRODUCTS]
    assert [product[:3] for product in multiplied] == one * 4 * predicting.TIMES
    passes = [multiplied[start : start + 4] for start in range(0, 16, 4)]
    assert passes == [passes[0]] * 4  # the same weights over and over
    assert len({product[3] for product in passes[0]}) == 4


@needs_library
def test_threads_share_every_product(multiplied: list[tuple[int, ...]]) -> None:
    packed_seconds("int8", PRODUCTS, 2)
    every = {(outputs, inputs, int(not sparse), part, 2) for outputs, inputs, sparse in PRODUCTS for part in (0, 1)}
    assert {(*product[:3], *product[4:]) for product in multiplied} == every


@needs_library
@pytest.mark.usefixtures("multiplied")
def test_the_median_of_all_passes_but_the_first_with_new_weights() -> None:
    passes = iter([99, 1, 2, 3, 99, 4, 5, 6, 99, 7, 8, 9])
    clock = iter([tick for taken in passes for tick in (0, taken)])
    assert packed_seconds("bf16", PRODUCTS, 1, lambda: float(next(clock))) == 5


def test_other_memory_is_read_before_new_weights(multiplied: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []

    class Library:
        def vlmc_read(self, start: object, words: int) -> None:
            read.append((words, len(multiplied)))

    monkeypatch.setattr(predicting, "loaded", Library)
    packed_seconds("bf16", PRODUCTS, 1)
    assert read == [(predicting.READ // 8, 16 * number) for number in range(predicting.TIMES)]


@needs_library
@pytest.mark.parametrize("sparse", [True, False])
def test_all_may_be_packed_or_none(sparse: bool) -> None:
    assert packed_seconds("fp32", [(32, 64, sparse)], 2) > 0
