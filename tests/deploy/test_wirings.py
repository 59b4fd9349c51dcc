"""The modules that become graphs answer, fed by the runtime, as transformers' own greedy `generate` does.

They run in torch here, which takes a moment; tests/runtime/test_families.py asks the graphs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import pico
from tests.deploy.sessions import TorchSession
from vlmc.runtime import processing
from vlmc.runtime.batching.states import Slots
from vlmc.runtime.deployment import CacheLayout
from vlmc.runtime.engine import Engine
from vlmc.runtime.processing import Processing, Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.deploy.agreement import greedy
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.deploy.probes import asked
from vlmc.toolchain.models.saved import SavedModel

pytestmark = pytest.mark.integration

TOKENS = 8


SHAPES = [(90, 40), (36, 70), (32, 32)]


@pytest.fixture(params=pico.DEPLOYABLE)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["concatenated", "in-place"])
def wired(request: pytest.FixtureRequest, family: str, tmp_path: Path) -> Wired:
    return wire(family, tmp_path, request.param)


def test_a_padded_batch_answers_as_transformers_does(wired: Wired) -> None:
    """Rows of unlike lengths, shapes and numbers of images; then the same rows where each joins a running batch."""
    batch = wired.process(wired.requests)
    assert len(set(batch.lengths_B.tolist())) > 1
    logits_BV, state = wired.engine.prefill(batch)
    tokens = [logits_BV.argmax(-1)]
    for _ in range(TOKENS - 1):
        logits_BV, state = wired.engine.step(tokens[-1], state)
        tokens.append(logits_BV.argmax(-1))
    assert np.stack(tokens, 1).tolist() == wired.expected
    assert joining(wired) == wired.expected


def joining(wired: Wired) -> list[list[int]]:
    """Answer the questions in a running batch that each joins a token after the one before it."""
    answers: list[list[int]] = []
    slots: Slots | None = None
    while any(len(answer) < TOKENS for answer in answers) or len(answers) < len(wired.requests):
        if len(answers) < len(wired.requests):
            logits_BV, state = wired.engine.prefill(wired.process(wired.requests[len(answers) :][:1]))
            slots = slots or Slots(state)
            assert slots.fill(state, [0]) == [len(answers)]
            answers.append([int(logits_BV[0].argmax())])
        assert slots is not None
        last = np.array([answer[-1] for answer in answers])
        logits_BV, slots.state = wired.engine.step(last, slots.state)
        for answer, logits_V in zip(answers, logits_BV, strict=True):
            answer.append(int(logits_V.argmax()))
    return [answer[:TOKENS] for answer in answers]


@dataclass(frozen=True)
class Wired:
    """A family's engine in torch, questions for it, and transformers' answers to them."""

    engine: Engine
    process: Processing
    requests: list[Request]
    expected: list[list[int]]


def wire(family: str, folder: Path, cache: CacheLayout) -> Wired:
    source = SavedModel.find(str(pico.save(family, folder / family)))
    model = source.load()
    deployed = deploy(source, model, {}, cache=cache)
    deployment, several = deployed.deployment, deployed.deployment.max_images != 1
    images = [pico.picture(seed, *shape) for seed, shape in enumerate(SHAPES)]
    questions = [
        (images[:1], "what is it ?"),
        (images[1:3] if several else images[1:2], pico.QUESTIONS[0]),
        (images[2:], "how many ?"),
    ]
    requests = [
        Request(fill_prompt(deployment.prompt, question, images=len(some)), tuple(some)) for some, question in questions
    ]
    engine = Engine(deployment, {spec.name: TorchSession(spec) for spec in deployed.specs})
    encoder = Encoder(source.load_processor(), source.family, model)
    expected = [greedy(model, encoder, asked("", text, *some), TOKENS, stop=False)[0] for some, text in questions]
    return Wired(engine, processing.find(source.folder, deployment), requests, expected)
