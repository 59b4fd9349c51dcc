"""`deployment.json` is strict, versioned, and says what is wrong with it."""

import json
from pathlib import Path

import pytest

from vlmc.runtime.deployment import AnyRes, Deployment, FixedProcessor, ImagePipeline, OwnProcessor, Patches, Prompt
from vlmc.runtime.errors import InputError
from vlmc.runtime.prompts import fill_prompt

PROMPT = Prompt(slot="<image>", image="<image>\n", question="USER: {images}{prompt} ASSISTANT:")
FIXED = Deployment(
    family="llava",
    processor=FixedProcessor(image=ImagePipeline(), image_tokens=4),
    prompt=PROMPT,
    image_token_id=4,
    stop_ids=(2,),
)
OWN = FIXED.model_copy(
    update={"processor": OwnProcessor(name="Qwen2_5_VLProcessor", images_only=True), "vision": Patches(merge=2, window=4)}
)


NEXT = FIXED.model_copy(
    update={"processor": OwnProcessor(), "vision": AnyRes(tile=336, side=24, canvases=((336, 672), (672, 336)))}
)


@pytest.mark.parametrize("deployment", [FIXED, OWN, NEXT])
def test_it_is_read_as_it_was_written(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_text(deployment.to_json())
    assert Deployment.read(tmp_path / "deployment.json") == deployment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"has version 2, this vlmc reads 1: upgrade vlmc"),
        ({"cache": "paged"}, r"is not valid at cache: .*; upgrade vlmc, or export again"),
        ({"surprise": 1}, r"is not valid at surprise: .*; upgrade vlmc, or export again"),
        ({"processor": {"kind": "other"}}, r"is not valid at processor: .*; upgrade vlmc, or export again"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(json.loads(FIXED.to_json()) | change))
    with pytest.raises(InputError, match=message):
        Deployment.read(path)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_text(text)
    with pytest.raises(InputError, match=r"deployment\.json (cannot be read|is not valid)"):
        Deployment.read(tmp_path / "deployment.json")
    with pytest.raises(InputError, match="cannot be read"):
        Deployment.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"decoder": "encoder-decoder"},
        {"decoder": "encoder-decoder", "start_id": 0},
        {"start_id": 0},
        {"graphs": {"encoder": "encoder_model"}},
    ],
)
def test_only_an_encoder_decoder_has_an_encoder_and_a_start(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(json.loads(FIXED.to_json()) | change))
    with pytest.raises(InputError, match="an encoder-decoder has a graph for its encoder and a start_id, and no other"):
        Deployment.read(path)


def test_files_from_before_prefix_masks_are_read(tmp_path: Path) -> None:
    content = json.loads(FIXED.to_json())
    new = ("start_id", "first_position")
    (tmp_path / "deployment.json").write_text(json.dumps({name: one for name, one in content.items() if name not in new}))
    assert content["prefix_mask"] is False
    assert Deployment.read(tmp_path / "deployment.json") == FIXED


def test_prompts_have_a_slot_for_each_image() -> None:
    assert fill_prompt(PROMPT, "what ?") == "USER: <image>\nwhat ? ASSISTANT:"
    assert fill_prompt(PROMPT, "<image>\nwhat ?", images=2) == "USER: <image>\n<image>\nwhat ? ASSISTANT:"
    assert fill_prompt(PROMPT, "say {images} and {prompt}") == "USER: <image>\nsay {images} and {prompt} ASSISTANT:"
    assert fill_prompt(PROMPT, "<image> and <image>: which ?", images=2, raw=True) == "<image> and <image>: which ?"
    with pytest.raises(InputError, match=r"the prompt has 1 slots for 2 images: put <image> where each goes"):
        fill_prompt(PROMPT, "<image> what ?", images=2, raw=True)
    with pytest.raises(InputError, match=r"the prompt has 2 slots for images \(<image>\), and there are 1 image"):
        fill_prompt(PROMPT, "<image> <image> what ?")
