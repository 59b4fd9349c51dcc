"""Every family that is exported answers as transformers' own greedy `generate`, token for token, through its own graphs."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime import Model, processing
from vlmc.runtime.deployment import OwnProcessor
from vlmc.runtime.engine import Engine
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.sessions import OnnxSession
from vlmc.toolchain.deploy.agreement import greedy
from vlmc.toolchain.deploy.probes import asked

pytestmark = pytest.mark.integration

SHAPES = ((32, 32), (90, 40), (36, 70), (20, 110))
"""Widths and heights of images that make unlike numbers of tiles and patches."""

LONG = 32
IMAGES = [pico.picture(seed, *shape) for seed, shape in enumerate(SHAPES)]


@pytest.fixture
def endless(deployed: Reference) -> Iterator[Model]:
    """The exported model, going on after the end of an answer."""
    forever = deployed.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(deployed.folder, forever, deployed.folder / "onnx", threads=1) as model:
        yield model


def ask(deployed: Reference, images: list[Image.Image], question: str) -> list[int]:
    return greedy(deployed.model, deployed.encoder, asked("", question, *images), LONG, stop=False)[0]


@pytest.mark.parametrize("index", range(len(SHAPES)), ids=[str(shape) for shape in SHAPES])
def test_tokens_are_those_of_transformers(deployed: Reference, endless: Model, index: int) -> None:
    question = pico.QUESTIONS[index % len(pico.QUESTIONS)]
    expected = ask(deployed, [IMAGES[index]], question)
    found = endless.generate(IMAGES[index], question, max_new_tokens=LONG)
    assert list(found.tokens) == expected
    room = deployed.deployment.max_positions  # T5 knows distances alone: there is no last position
    assert (room is None) == (deployed.deployment.decoder == "encoder-decoder")
    assert len(expected) == (LONG if room is None else min(LONG, room - found.prompt_tokens))


def test_two_images_of_unlike_shapes(deployed: Reference, endless: Model) -> None:
    images = IMAGES[1:3]
    if deployed.deployment.max_images == 1:
        with pytest.raises(InputError, match="2 images were given, and this model looks at 1 at a time"):
            endless.generate(images, pico.QUESTIONS[0])
        return
    found = endless.generate(images, pico.QUESTIONS[1], max_new_tokens=LONG)
    assert list(found.tokens) == ask(deployed, images, pico.QUESTIONS[1])
    process, prompt = processing.find(deployed.folder, deployed.deployment), deployed.deployment.prompt
    text = fill_prompt(prompt, pico.QUESTIONS[1], images=2)
    given, turned = (endless.engine.prefill(process([Request(text, order)]))[0] for order in (images, images[::-1]))
    assert np.abs(given - turned).max() > 1e-4 * np.abs(given).max()


def test_rows_of_a_batch_do_not_know_of_each_other(deployed: Reference) -> None:
    """Rows of unlike lengths and numbers of images are filled up, and stand at different positions while they answer."""
    deployment, several = deployed.deployment, deployed.deployment.max_images != 1
    questions = [
        (IMAGES[:1], "what is it ?"),
        (IMAGES[1:3] if several else IMAGES[1:2], pico.QUESTIONS[0]),
        (IMAGES[3:], "how many ?"),
    ]
    requests = [
        Request(fill_prompt(deployment.prompt, question, images=len(images)), tuple(images))
        for images, question in questions
    ]
    batch = processing.find(deployed.folder, deployment)(requests)
    assert len(set(batch.lengths_B.tolist())) > 1
    graphs = {name: OnnxSession(deployed.folder / f"onnx/{name}.onnx", threads=1) for name in deployment.graphs.names}
    engine = Engine(deployment, graphs)
    logits_BV, state = engine.prefill(batch)
    tokens = [logits_BV.argmax(-1)]
    for _ in range(9):
        logits_BV, state = engine.step(tokens[-1], state)
        tokens.append(logits_BV.argmax(-1))
    engine.close()
    for row, (images, question) in enumerate(questions):
        assert [int(step[row]) for step in tokens] == ask(deployed, images, question)[:10]


def test_arrays_are_those_that_the_processor_makes(deployed: Reference) -> None:
    """What the runtime feeds its graphs is the family's own processing, without torch."""
    sample = asked("", pico.QUESTIONS[0], IMAGES[1])
    expected = deployed.encoder.question(sample)
    request = Request(fill_prompt(deployed.deployment.prompt, sample.question), (IMAGES[1],))
    found = processing.find(deployed.folder, deployed.deployment)([request])
    np.testing.assert_array_equal(found.ids_BS, expected["input_ids"].numpy())
    pixels = expected["pixel_values"]
    pixels = pixels[0] if pixels.ndim == 5 else pixels  # Idefics3 counts tiles within a request
    torch.testing.assert_close(torch.from_numpy(found.vision["pixel_values"]), pixels, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_no_torch_is_needed(deployed: Reference) -> None:
    code = f"""
import sys
sys.modules['torch'] = sys.modules['torchvision'] = None
from PIL import Image
from vlmc.runtime import load
image = Image.frombytes("RGB", {IMAGES[1].size}, sys.stdin.buffer.read())
with load({str(deployed.folder)!r}, threads=1) as model:
    print(list(model.generate(image, {pico.QUESTIONS[0]!r}).tokens))
"""
    done = subprocess.run([sys.executable, "-c", code], input=IMAGES[1].tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    sample = asked("", pico.QUESTIONS[0], IMAGES[1])
    assert done.stdout.decode().strip() == str(greedy(deployed.model, deployed.encoder, sample, LONG)[0])


def test_transformers_that_is_missing_is_told(deployed: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(deployed.deployment.processor, OwnProcessor):
        return
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EnvironmentLacks, match=r"needs transformers: pip install 'vlmc\[processors\]'"):
        processing.find(deployed.folder, deployed.deployment)
