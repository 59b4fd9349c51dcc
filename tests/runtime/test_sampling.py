"""Sampling draws from the distribution that transformers draws from."""

import numpy as np
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vlmc.runtime.options import Options
from vlmc.runtime.sampling import Sampler

LOGITS = np.random.default_rng(0).normal(size=50).astype(np.float32) * 3
PROMPT = [3, 7, 7, int(LOGITS.argmax())]


def test_greedy_takes_the_first_of_the_largest() -> None:
    assert Sampler(Options()).choose(np.array([1.0, 3.0, 3.0])) == 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_probabilities_are_those_of_transformers(temperature: float, top_p: float, top_k: int, penalty: float) -> None:
    ids, scores = torch.tensor([PROMPT]), torch.tensor(LOGITS)[None]
    scores = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    scores = TemperatureLogitsWarper(temperature)(ids, scores)
    scores = TopKLogitsWarper(top_k)(ids, scores) if top_k else scores
    scores = TopPLogitsWarper(top_p)(ids, scores) if top_p < 1 else scores
    expected = torch.softmax(scores, -1)[0].numpy()
    options = Options(temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=penalty)
    np.testing.assert_allclose(Sampler(options, PROMPT).probabilities(LOGITS), expected, atol=1e-6)


def test_a_penalty_counts_for_greedy_and_for_what_was_chosen() -> None:
    flat = np.array([1.0, 0.9, 0.8], np.float32)
    sampler = Sampler(Options(repetition_penalty=2.0), [2])
    assert [sampler.choose(flat) for _ in range(3)] == [0, 1, 0]


@pytest.mark.integration
def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(Options(temperature=1.0, top_p=0.9, seed=1))
    counts = np.bincount([sampler.choose(LOGITS) for _ in range(4000)], minlength=50) / 4000
    np.testing.assert_allclose(counts, sampler.probabilities(LOGITS), atol=0.03)


def test_a_temperature_near_zero_is_greedy() -> None:
    assert Sampler(Options(temperature=1e-300, seed=0)).choose(LOGITS) == LOGITS.argmax()
