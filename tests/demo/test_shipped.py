"""The shipped models: whole, described truthfully, and usable with nothing but transformers."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.demo.dataset import samples
from vlmc.toolchain.demo.questions import KINDS
from vlmc.toolchain.demo.scoring import score
from vlmc.toolchain.demo.shipped import locate, verify, write_sums
from vlmc.toolchain.demo.train import DEMOS

FLOORS = {"demo": 0.90, "demo-blip2": 0.80}
"""The accuracy that each model must have on the test split."""


@pytest.fixture(params=DEMOS)
def name(request: pytest.FixtureRequest) -> str:
    """Each demo model in turn."""
    return str(request.param)


def test_locate_checks_and_finds(name: str) -> None:
    assert (locate(name) / "model.safetensors").is_file()


def test_the_models_are_small() -> None:
    assert sum(path.stat().st_size for name in DEMOS for path in locate(name).iterdir()) < 12_000_000


@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_a_tampered_folder_is_refused(harm: str, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(locate("demo"), folder)
    verify(folder)
    if harm == "changed":
        (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    elif harm == "missing":
        (folder / "config.json").unlink()
    else:
        (folder / "extra.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"^[^\n]*(config\.json|extra\.bin)[^\n]*$"):
        verify(folder)
    write_sums(folder)
    verify(folder)


def test_a_folder_without_sums_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SHA256SUMS is missing"):
        verify(tmp_path)


def test_the_weights_are_fp16(name: str) -> None:
    with safe_open(locate(name) / "model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_every_matrix_suits_two_four(name: str) -> None:
    model = AutoModelForImageTextToText.from_pretrained(locate(name))
    for label, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert min(module.weight.shape) >= 64, label
            assert not any(side % 16 for side in module.weight.shape), label


def test_the_card_states_every_kind_and_the_floor(name: str) -> None:
    card = (locate(name) / "README.md").read_text(encoding="utf-8")
    stated = {kind: float(share) / 100 for kind, share in re.findall(r"^\| (\w+) \| ([\d.]+)%", card, re.MULTILINE)}
    assert stated.keys() == {*KINDS, "all"}
    assert stated["all"] >= FLOORS[name]
    assert stated["all"] == pytest.approx(sum(stated[kind] for kind in KINDS) / len(KINDS), abs=0.001)
    assert name != "demo" or min(stated.values()) >= 0.80


@pytest.mark.integration
def test_plain_transformers_answers_validation_questions(name: str) -> None:
    """Generation through AutoProcessor and AutoModel agrees with the one-pass score, question by question."""
    processor = AutoProcessor.from_pretrained(locate(name))
    model = AutoModelForImageTextToText.from_pretrained(locate(name), dtype=torch.float32)
    asked = list(samples("validation", 200))
    turns = [[{"type": "image"}, {"type": "text", "text": sample.question}] for sample in asked]
    # Blip2Processor has no template of its own after loading; the tokenizer carries it for both models.
    prompts = [
        processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
        )
        for turn in turns
    ]
    images = [sample.load_image() for sample in asked]
    inputs = processor(images=images, text=prompts, return_tensors="pt", padding=True)
    ids = model.generate(**inputs, max_new_tokens=24)[:, inputs["input_ids"].shape[1] :]
    answers = processor.batch_decode(ids, skip_special_tokens=True)
    right = sum(answer.strip().lower() == sample.answer for answer, sample in zip(answers, asked, strict=True))
    expected = score(model, DEMOS[name].recipe.prefix, asked)["all"]
    assert right / len(asked) == pytest.approx(expected, abs=0.0051)
    assert expected >= FLOORS[name] - 0.05


def test_the_prompt_ends_without_eos(name: str) -> None:
    processor = AutoProcessor.from_pretrained(locate(name))
    ids = processor.tokenizer("what is the sum? answer:")["input_ids"]
    assert processor.tokenizer.eos_token_id not in ids
    assert processor.tokenizer.unk_token_id not in ids


@pytest.mark.integration
def test_every_word_is_in_the_vocabulary(name: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(locate(name)).tokenizer
    for sample in samples("train", 550):
        ids = tokenizer(f"{sample.question} {sample.answer}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        answer = tokenizer(sample.answer, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(answer, skip_special_tokens=True) == sample.answer
