"""How a model is fed is found in its family, config and processor; what the runtime cannot repeat is left to the last."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import LlavaImageProcessorPil

from tests import pico
from tests.artifacts import pruned
from vlmc.runtime import processing
from vlmc.runtime.deployment import Deployment, FixedProcessor, OwnProcessor, Patches, Tiles
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.toolchain.deploy.deployed import deploy
from vlmc.toolchain.deploy.describe import _repeated, describe, image_pipeline
from vlmc.toolchain.families.base import Family
from vlmc.toolchain.families.gemma3 import Gemma3
from vlmc.toolchain.models.saved import SavedModel


def described(family: str, folder: Path, **changes: Any) -> tuple[SavedModel, Deployment]:
    saved = SavedModel.find(str(pico.save(family, folder)))
    processor = saved.load_processor()
    for name, value in changes.items():
        setattr(processor, name, value)
    processor.save_pretrained(folder)
    model = saved.load()
    wiring = saved.family.wiring(model)
    assert wiring is not None
    return saved, describe(saved.family, wiring, model, saved.load_processor())


@pytest.mark.integration
def test_families_with_one_size_need_no_transformers(tmp_path: Path) -> None:
    llava, blip2 = (described(family, tmp_path / family)[1] for family in ("llava", "blip-2"))
    assert isinstance(llava.processor, FixedProcessor)
    assert isinstance(blip2.processor, FixedProcessor)
    assert (llava.processor.image_tokens, blip2.processor.image_tokens) == (4, 4)
    assert (llava.prompt.image, llava.prompt.question) == ("<image>\n", "USER: {images}{prompt} ASSISTANT:")
    assert (blip2.prompt.place, blip2.prompt.question) == ("front", "{images}Question: {prompt} Answer:")
    assert (llava.max_images, blip2.max_images, llava.max_positions) == (None, 1, 48)


def test_others_bring_their_own_processor(tmp_path: Path) -> None:
    qwen = described("qwen2_5_vl", tmp_path / "qwen2_5_vl")[1]
    assert qwen.processor == OwnProcessor(name="Qwen2_5_VLProcessor", images_only=True)
    assert (qwen.vision, qwen.positions) == (Patches(merge=2, window=2), "m-rope")
    assert qwen.prompt.image == "<|vision_start|><|image_pad|><|vision_end|>"
    assert len(qwen.stop_ids) == 2
    assert qwen.prompt.chat_template is not None


def test_tiles_that_fill_up_a_batch_are_known(tmp_path: Path) -> None:
    smol = described("smolvlm", tmp_path)[1]
    assert smol.processor == OwnProcessor(name="Idefics3Processor")
    assert (smol.vision, smol.positions) == (Tiles(padded=True), "sequential")


@pytest.mark.integration
def test_image_processor_that_numpy_cannot_repeat_is_run_by_transformers(tmp_path: Path) -> None:
    padding = LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_pad=True)
    saved, deployment = described("llava", tmp_path, image_processor=padding)
    assert deployment.processor == OwnProcessor()
    assert pruned(tmp_path, tmp_path / "pruned").manifest.layers
    image = pico.picture(0, 70, 30)
    found = processing.find(tmp_path, deployment)([Request(fill_prompt(deployment.prompt, "what is it ?"), (image,))])
    expected = saved.load_processor()(images=image, text=fill_prompt(deployment.prompt, "what is it ?"), return_tensors="np")
    np.testing.assert_array_equal(found.ids_BS, expected["input_ids"])
    np.testing.assert_allclose(found.vision["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"do_pad": True}, {"do_resize": True, "size": {"longest_edge": 64}}, {"do_resize": True, "size": {"max_pixels": 99}}],
)
def test_steps_that_are_not_known_are_no_pipeline(settings: dict[str, Any]) -> None:
    assert image_pipeline(SimpleNamespace(to_dict=lambda: settings)) is None


@pytest.mark.parametrize(
    ("one", "two", "piece"),
    [
        ("USER: <i>\nwhat", "USER: <i>\n<i>\nwhat", "<i>\n"),
        ("<s>[<i>] what", "<s>[<i>][<i>] what", "[<i>]"),
        ("<i>what", "<i><i>what", "<i>"),
        ("1: <i> what", "1: <i> 2: <i> what", None),
        ("a <i> b", "a <i> and <i> b", None),
    ],
)
def test_what_an_image_takes_in_the_prompt(one: str, two: str, piece: str | None) -> None:
    assert _repeated(one, "<i>", two) == piece


def test_family_without_a_wiring_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gemma3, "wiring", Family.wiring)
    saved = SavedModel.find(str(pico.save("gemma3", tmp_path)))
    with pytest.raises(
        InputError, match=r"vlmc cannot export a gemma3 model yet: it exports llava, llava_next, .*; transformers loads"
    ):
        deploy(saved, saved.load(), {})
