"""Plain text and questions without an image, alone and beside images: encoded, pruned on, trained on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import pico
from tests.families.conftest import Built, samples
from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import IGNORE
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.writing import write
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import PruneSettings, RepairSettings
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair

NEED_IMAGES = [name for name in pico.FAMILIES if "blip" in name or name == "paligemma"]
READERS = [name for name in pico.FAMILIES if name not in NEED_IMAGES]
PLAIN = Sample("p", (), "", "what is the red digit in the <image> top left seven blue", "all")


@pytest.mark.parametrize("built", READERS, indirect=True)
def test_every_token_of_plain_text_is_predicted_and_none_is_an_image(built: Built) -> None:
    encoded = built.encoder.answered(PLAIN)
    ids_T, labels_T = encoded["input_ids"][0], encoded["labels"][0]
    assert labels_T[0] == IGNORE
    assert torch.equal(labels_T[1:], ids_T[1:])
    assert not built.source.family.visual_tokens(built.model, encoded).any()
    assert not any("pixel" in name for name in encoded)
    with pytest.raises(InputError, match="sample p is plain text, which has no question to answer"):
        built.encoder.question(PLAIN)
    long = built.encoder.answered(Sample("l", (), "", "red digit " * 400, "all"))
    assert long["input_ids"].shape == long["labels"].shape == (1, min(256, built.encoder.max_positions or 256))


@pytest.mark.integration
@pytest.mark.parametrize("built", READERS, indirect=True)
def test_plain_text_in_a_batch_with_images_gives_the_logits_that_it_gives_alone(built: Built) -> None:
    encoded = [built.encoder.answered(one) for one in (samples(1)[0], PLAIN)]
    with torch.no_grad():
        both = built.model(**built.encoder.collate(encoded)).logits
        alone = [built.model(**one).logits[0] for one in encoded]
    for row, logits in zip(both, alone, strict=True):
        torch.testing.assert_close(row[: len(logits)], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("built", NEED_IMAGES, indirect=True)
def test_models_that_need_an_image_say_so(built: Built) -> None:
    with pytest.raises(InputError, match=f"sample p: a {built.name} model cannot read text without an image"):
        built.encoder.answered(PLAIN)


def mixture(folder: Path) -> str:
    """Return `--data` of seven questions about images to three pieces of text."""
    asked = write(samples(), folder / "asked", "train")
    folder.joinpath("text.txt").write_text("the red digit is seven and the blue one is two. " * 300)
    return f"{asked}=0.7,{folder / 'text.txt'}=0.3"


@pytest.mark.integration
@pytest.mark.parametrize("built", ["llava", "idefics3", "qwen2_5_vl", "internvl"], indirect=True)
def test_pruned_and_repaired_on_a_mixture_with_text(built: Built, tmp_path: Path) -> None:
    source = mixture(tmp_path)
    pruned = Prune(PruneSettings(calibration=6, data=source)).run(built.source, tmp_path / "pruned")
    assert {layer.part for layer in pruned.manifest.layers.values()} >= {Part.VISION, Part.LANGUAGE}
    options = RepairSettings(steps=3, batch=4, rank=2, data=source, samples=5, pruned_questions=4, hold_out="1")
    adapted = Repair(options).run(SavedModel.find(str(pruned.root)), tmp_path / "adapted")
    merged = Merge().run(SavedModel.find(str(adapted.root)), tmp_path / "merged")
    assert merged.manifest.state == "merged"
    assert adapted.manifest.history[-1].measures["last_loss"] > 0


@pytest.mark.integration
@pytest.mark.parametrize("built", ["llava", "idefics3"], indirect=True)
def test_images_are_calibrated_on_as_without_the_text_beside_them(built: Built, tmp_path: Path) -> None:
    """Vision layers see images alone, so their masks do not change; those of the language model do."""
    asked = write(samples(), tmp_path / "asked", "train")
    (tmp_path / "text.txt").write_text("top left bottom right what is there ? " * 100)
    masks = {}
    for name, source, count in (("images", f"{asked}", 2), ("mixed", f"{asked},{tmp_path / 'text.txt'}", 4)):
        options = PruneSettings(calibration=count, data=source, reconstruct=True, reconstruct_epochs=1)
        artifact = Prune(options).run(built.source, tmp_path / name)
        weights = load_file(artifact.root / "model.safetensors")
        masks[name] = {one: weights[layer.tensor] != 0 for one, layer in artifact.manifest.layers.items()}
        parts = {one: layer.part for one, layer in artifact.manifest.layers.items()}
    loaded = data.load(f"{asked},{tmp_path / 'text.txt'}", "train", 4)
    assert [bool(sample.images) for sample in loaded].count(True) == 2
    same = {part: [torch.equal(masks["images"][n], masks["mixed"][n]) for n in parts if parts[n] is part] for part in Part}
    assert all(same[Part.VISION])
    assert not all(same[Part.LANGUAGE])


def test_text_alone_cannot_calibrate_a_vision_encoder(tmp_path: Path) -> None:
    dense = pico.save("llava", tmp_path / "dense")
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"what is the digit {n}"}) for n in range(4)))
    options = PruneSettings(calibration=4, data=f"{tmp_path / 'text.jsonl'}?image=none")
    with pytest.raises(InputError, match="no calibration sample has an image, and vision layers are to be pruned"):
        Prune(options).run(SavedModel.find(str(dense)), tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
