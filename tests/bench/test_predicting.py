"""What a token's packed products are predicted to take: those of the model, all of them, over and over."""

from typing import Any

import pytest

from tests.runtime.kernels.material import needs_library
from vlmc.runtime.kernels.native import loaded
from vlmc.toolchain.bench import predicting
from vlmc.toolchain.bench.predicting import is_predicted, packed_seconds

PRODUCTS = [(32, 64, True), (64, 32, True), (48, 64, False), (32, 64, True)]


class Kernels:
    """The kernels, which write down what they do."""

    def __init__(self) -> None:
        self.multiplied: list[tuple[int, int, int, int]] = []
        self.weights: set[int] = set()
        self.read: list[tuple[int, int]] = []

    def run(self, described: Any, *, part: int, parts: int) -> None:
        self.multiplied.append((described.outputs, described.inputs, part, parts))
        self.weights.add(described.values)

    def vlmc_read(self, start: Any, words: int) -> int:
        self.read.append((start.value, words))
        return 0


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    found = Kernels()
    monkeypatch.setattr(predicting, "SECONDS", 0.0)
    monkeypatch.setattr(predicting, "run", found.run)
    monkeypatch.setattr(predicting, "loaded", lambda: found)
    return found


def test_a_decoder_that_a_cache_holds_is_not_predicted() -> None:
    assert not is_predicted([(512, 512, True)])
    assert is_predicted([(1 << 13, 1 << 12, True), (1 << 13, 1 << 12, False)])


@needs_library
def test_a_pass_is_every_product_in_turn_and_all_that_is_dense(kernels: Kernels) -> None:
    packed_seconds("bf16", PRODUCTS, 1)
    passes = predicting.PASSES + 1
    assert kernels.multiplied == [(outputs, inputs, 0, 1) for outputs, inputs, sparse in PRODUCTS if sparse] * passes
    assert len(kernels.weights) == 3  # each in memory of its own
    assert [words for _, words in kernels.read] == [48 * 64 * 2 // 8] * passes


@needs_library
def test_threads_share_every_product_and_what_is_dense(kernels: Kernels) -> None:
    packed_seconds("int8", PRODUCTS, 2)
    assert sorted(set(kernels.multiplied)) == [(o, i, part, 2) for o, i in ((32, 64), (64, 32)) for part in (0, 1)]
    (first, half), (second, rest) = sorted(set(kernels.read))
    assert half == rest
    assert second - first == 8 * half


@needs_library
def test_the_median_pass_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "SECONDS", 0.0)
    clock = iter([0, 100, 100, 101, 200, 207, 300, 303])
    assert packed_seconds("bf16", PRODUCTS, 1, lambda: float(next(clock))) == 3


@needs_library
@pytest.mark.parametrize("sparse", [True, False])
def test_all_may_be_packed_or_none(sparse: bool) -> None:
    assert loaded()
    assert packed_seconds("fp32", [(32, 64, sparse)], 2) > 0
