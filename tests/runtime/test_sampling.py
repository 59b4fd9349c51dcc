"""Sampling draws from the distribution that transformers draws from."""

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from vlmc.runtime.errors import InputError
from vlmc.runtime.sampling import Sampler

LOGITS = np.random.default_rng(0).normal(size=50).astype(np.float32) * 3


def test_greedy_takes_the_first_of_the_largest() -> None:
    assert Sampler().choose(np.array([1.0, 3.0, 3.0]), np.random.default_rng()) == 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_probabilities_are_those_of_transformers(temperature: float, top_p: float) -> None:
    scores = TemperatureLogitsWarper(temperature)(torch.zeros(1, 1), torch.tensor(LOGITS)[None])
    scores = TopPLogitsWarper(top_p)(torch.zeros(1, 1), scores) if top_p < 1 else scores
    expected = torch.softmax(scores, -1)[0].numpy()
    np.testing.assert_allclose(Sampler(temperature, top_p).probabilities(LOGITS), expected, atol=1e-6)


def test_draws_follow_the_probabilities() -> None:
    sampler, random = Sampler(1.0, 0.9), np.random.default_rng(1)
    counts = np.bincount([sampler.choose(LOGITS, random) for _ in range(4000)], minlength=50) / 4000
    np.testing.assert_allclose(counts, sampler.probabilities(LOGITS), atol=0.03)


def test_a_temperature_near_zero_is_greedy() -> None:
    assert Sampler(1e-300).choose(LOGITS, np.random.default_rng(0)) == LOGITS.argmax()


@pytest.mark.parametrize("options", [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_options_out_of_range_are_told(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="out of range"):
        Sampler(**options)
