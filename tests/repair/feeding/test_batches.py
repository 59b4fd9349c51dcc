"""Which samples a step sees."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.repair import material
from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.repair.feeding import Batches
from vlmc.toolchain.repair.feeding.batches import SampleCache


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return material.dense("llava", Path(tmp_path_factory.mktemp("batches")) / "dense")


def batches(source: SavedModel, size: int, seed: int = 0) -> Batches:
    return Batches(material.samples(7), material.encoder(source), size, seed)


def test_every_epoch_sees_every_sample_once(source: SavedModel) -> None:
    some = batches(source, 3)
    seen = [index for step in range(7) for index in some.indices(step)]
    epochs = [seen[start : start + 7] for start in range(0, 21, 7)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1]


def test_the_order_follows_from_seed_and_step_alone(source: SavedModel) -> None:
    one, other = batches(source, 3), batches(source, 3)
    forwards = {step: one.indices(step) for step in (0, 5, 9)}
    assert {step: other.indices(step) for step in (9, 5, 0)} == forwards
    assert one.indices(0) != batches(source, 3, seed=1).indices(0)


def test_a_batch_may_be_larger_than_the_data(source: SavedModel) -> None:
    assert len(batches(source, 20).indices(0)) == 20


def test_cached_batches_are_the_same(source: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batches(source, 7)
    some = Batches(plain.samples, plain.encoder, plain.size, plain.seed, SampleCache(1_000_000))
    first = some.at(0)
    monkeypatch.setattr(plain.encoder, "answered", None)  # nothing is encoded again
    again = some.at(0)
    assert all(torch.equal(first.inputs[name], again.inputs[name]) for name in first.inputs)
    assert torch.equal(first.answers_N, again.answers_N)


def test_no_more_is_kept_than_there_is_room_for(source: SavedModel) -> None:
    plain = batches(source, 7)
    plain.at(0)
    assert not plain.cache.bytes
    one = sum(tensor.nbytes for tensor in plain.encoder.answered(plain.samples[0]).values())
    some = Batches(plain.samples, plain.encoder, plain.size, plain.seed, SampleCache(3 * one))
    some.at(0)
    kept = [one for one in map(some.cache.get, range(7)) if one is not None]
    assert 0 < sum(tensor.nbytes for one in kept for tensor in one.values()) == some.cache.bytes <= 3 * one


def test_a_sample_beyond_the_model_is_named(source: SavedModel) -> None:
    long = replace(material.samples(1)[0], id="s7", answer="two " * 60)
    with pytest.raises(InputError, match=r"sample s7 has \d+ tokens, the model takes 48"):
        Batches([long], material.encoder(source), 1, 0).at(0)
