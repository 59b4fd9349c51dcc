from pathlib import Path

import pytest
import torch

from tests import pico
from tests.repair.material import samples
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import IGNORE, Encoder, collate
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models import Checkpoint

FAMILIES = sorted(pico.FAMILIES)


def encoder(family: str, folder: Path) -> Encoder:
    checkpoint = Checkpoint.find(str(pico.save(family, folder / family)))
    processor = checkpoint.load_processor()
    return Encoder(processor, checkpoint.family.serving(checkpoint.load(), processor))


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_cover_the_answer_and_its_end_only(tmp_path: Path, family: str) -> None:
    encode, sample = encoder(family, tmp_path), samples(2)[1]
    asked, answered = encode.question(sample), encode.answered(sample)
    length = asked["input_ids"].shape[1]
    assert torch.equal(answered["input_ids"][:, :length], asked["input_ids"])
    assert (answered["labels"][:, :length] == IGNORE).all()
    tail = answered["labels"][0, length:].tolist()
    assert encode.processor.tokenizer.decode(tail) == f"{sample.answer} </s>"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_the_processors_own_chat_template(tmp_path: Path, family: str) -> None:
    encode, sample = encoder(family, tmp_path), samples(1)[0]
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.question}]}
    text = encode.processor.apply_chat_template([turn], add_generation_prompt=True)
    expected = encode.processor(images=sample.load_image(), text=text, return_tensors="pt")
    found = encode.question(sample)
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_padding_is_masked_and_unlabelled(tmp_path: Path) -> None:
    encode = encoder("llava", tmp_path)
    items = [encode.answered(sample) for sample in samples(4)]
    batch = collate(items, pad_token_id=0)
    assert len({item["input_ids"].shape[1] for item in items}) > 1, "the test needs different lengths"
    for row, item in enumerate(items):
        length = item["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, :length], item["input_ids"][0])
        assert (batch["attention_mask"][row, length:] == 0).all()
        assert (batch["labels"][row, length:] == IGNORE).all()


def test_an_answer_without_tokens_is_refused(tmp_path: Path) -> None:
    encode = encoder("llava", tmp_path)
    with pytest.raises(InputError, match="answer without any token"):
        encode.answered(Sample("x", pico.picture(0), "what ?", " ", "kind"))
