"""Questions about several images, with what the system says: from a file to the conversation that the processor makes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.families.conftest import SHAPES, Built
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoded
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.evaluate import evaluate
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair

SEVERAL = [name for name in pico.FAMILIES if "blip" not in name]
CHATTING = [name for name in SEVERAL if name != "paligemma"]
TRIED = ("llava", "idefics3", "smolvlm", "qwen2_5_vl", "internvl")
"""The families whose models are pruned, repaired and asked on such questions."""

Turn = dict[str, Any]


def text(some: str) -> Turn:
    return {"type": "text", "text": some}


def image(number: int) -> Turn:
    return {"type": "image", "path": f"{number}.png"}


CONVERSATIONS: dict[str, list[Turn]] = {
    "first": [{"role": "user", "content": [image(0), image(1), text("which is red ?")]}],
    "among": [{"role": "user", "content": [text("the left is "), image(0), text(" the right is "), image(1), text(" ?")]}],
    "system": [
        {"role": "system", "content": [text("two red digits")]},
        {"role": "user", "content": [image(1), image(2), image(0), text("how many ?")]},
    ],
    "last": [{"role": "user", "content": [text("which colour is "), image(1)]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("several")
    for number in range(3):
        pico.picture(number, *SHAPES[number]).save(made / f"{number}.png")
    return made


def put(folder: Path, conversations: list[list[Turn]]) -> str:
    """Write conversations, each with an answer, as `messages`."""
    answered = [[*turns, {"role": "assistant", "content": [text("seven")]}] for turns in conversations]
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in answered))
    return str(path)


def direct(built: Built, folder: Path, turns: list[Turn]) -> Encoded:
    """What the processor itself makes of a conversation, its images opened."""

    def opened(part: Turn) -> Turn:
        number = part.get("path", "0.png").partition(".")[0]
        return (
            part if part["type"] == "text" else {"type": "image", "image": pico.picture(int(number), *SHAPES[int(number)])}
        )

    shown = [{**turn, "content": [opened(part) for part in turn["content"]]} for turn in turns]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    return dict(built.encoder.processor.apply_chat_template(shown, **options))


@pytest.mark.parametrize("built", CHATTING, indirect=True)
@pytest.mark.parametrize("form", CONVERSATIONS)
def test_a_question_is_the_conversation_that_the_processor_makes(built: Built, folder: Path, form: str) -> None:
    (sample,) = data.load(put(folder, [CONVERSATIONS[form]]), "test")
    found, expected = built.encoder.question(sample), direct(built, folder, CONVERSATIONS[form])
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    with torch.no_grad():
        ours, theirs = (built.model(**inputs).logits for inputs in (found, expected))
    assert torch.equal(ours, theirs)
    assert torch.isfinite(ours).all()


@pytest.mark.parametrize("built", SEVERAL, indirect=True)
def test_a_question_without_an_image_is_text_alone(built: Built) -> None:
    sample = Sample("s", (), "what is red ?", "seven", "kind")
    if built.name == "paligemma":
        with pytest.raises(InputError, match="sample s: a paligemma model cannot answer a question without an image"):
            built.encoder.question(sample)
        return
    found, expected = (
        built.encoder.question(sample),
        direct(built, Path(), [{"role": "user", "content": [text("what is red ?")]}]),
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any("pixel" in name for name in found)
    seen = Sample("t", (pico.picture(1, 40, 70),), "which ?", "blue", "kind")
    encoded = [built.encoder.answered(one) for one in (sample, seen)]
    with torch.no_grad():
        both = built.model(**built.encoder.collate(encoded)).logits
        alone = [built.model(**one).logits[0] for one in encoded]
    for row, logits in zip(both, alone, strict=True):
        torch.testing.assert_close(row[: len(logits)], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("built", [name for name in pico.FAMILIES if "blip" in name], indirect=True)
def test_a_model_that_takes_one_image_says_so_for_the_sample(built: Built, folder: Path) -> None:
    (sample,) = data.load(put(folder, [CONVERSATIONS["first"]]), "test")
    with pytest.raises(
        InputError, match=rf"sample d.jsonl line 1-0: a {built.name} model takes one image, but 2 were given"
    ):
        built.encoder.question(sample)


@pytest.mark.slow
@pytest.mark.parametrize("built", TRIED, indirect=True)
def test_pruned_repaired_and_asked_on_several_images(built: Built, folder: Path, tmp_path: Path) -> None:
    source = put(folder, [CONVERSATIONS[form] for form in CONVERSATIONS])
    pruned = Prune(PruneSettings(calibration=4, data=source)).run(built.source, tmp_path / "pruned")
    options = RepairSettings(steps=12, batch=4, lr=1e-2, rank=4, data=source, validate_every=6, validation=source)
    adapted = Repair(options).run(SavedModel.find(str(pruned.root)), tmp_path / "adapted")
    measures = adapted.manifest.history[-1].measures
    assert measures["last_loss"] < measures["first_loss"]
    assert set(measures["data"]) == {"training", "validation"}
    asked = data.load(source, "test")
    accuracy = evaluate(
        SavedModel.find(str(Artifact.open(pruned.root).root)).load(), built.encoder, asked, Progress(quiet=True), title=""
    )
    assert accuracy.count == 4
