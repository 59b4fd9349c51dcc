"""The modules that become graphs answer, fed by the runtime, as transformers' own greedy `generate` does.

They run in torch here, which takes a moment; tests/runtime/test_families.py asks the graphs themselves.
"""

from pathlib import Path

import numpy as np
import pytest

from tests import pico
from tests.deploy.sessions import TorchSession
from vlmc.runtime import processing
from vlmc.runtime.engine import Engine
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.deploy.agreement import greedy
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.deploy.probes import asked
from vlmc.toolchain.models.saved import SavedModel

TOKENS = 8


SHAPES = [(90, 40), (36, 70), (32, 32)]


@pytest.mark.parametrize("family", pico.DEPLOYABLE)
def test_a_padded_batch_answers_as_transformers_does(family: str, tmp_path: Path) -> None:
    """Rows of unlike lengths, shapes and numbers of images."""
    try:
        folder = pico.save(family, tmp_path / family)
    except ImportError as error:  # transformers 5.17 has no image processor for Idefics3 that does without torchvision
        pytest.skip(str(error).strip().splitlines()[0])
    source = SavedModel.find(str(folder))
    model = source.load()
    deployed = deploy(source, model, {})
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
    batch = processing.find(source.folder, deployment)(requests)
    assert len(set(batch.lengths_B.tolist())) > 1
    engine = Engine(deployment, {spec.name: TorchSession(spec) for spec in deployed.specs})
    logits_BV, state = engine.prefill(batch)
    tokens = [logits_BV.argmax(-1)]
    for _ in range(TOKENS - 1):
        logits_BV, state = engine.step(tokens[-1], state)
        tokens.append(logits_BV.argmax(-1))
    found = np.stack(tokens, 1).tolist()
    encoder = Encoder(source.load_processor(), source.family, model)
    expected = [greedy(model, encoder, asked("", text, *some), TOKENS, stop=False)[0] for some, text in questions]
    assert found == expected
