"""Samples become tensors; that each family's are the model's own is tested in tests/families."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests import pico
from tests.repair.material import samples
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import IGNORE, Encoder, TooLong, collate
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.models.saved import SavedModel


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    saved = SavedModel.find(str(pico.save("llava", Path(tmp_path_factory.mktemp("encode")))))
    return Encoder(saved.load_processor(), saved.family, saved.load())


@pytest.mark.integration
def test_padding_is_masked_and_unlabelled(encode: Encoder) -> None:
    items = [encode.answered(sample) for sample in samples(4)]
    batch = encode.collate(items)
    assert len({item["input_ids"].shape[1] for item in items}) > 1, "the test needs different lengths"
    for row, item in enumerate(items):
        length = item["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, :length], item["input_ids"][0])
        assert (batch["attention_mask"][row, length:] == 0).all()
        assert (batch["labels"][row, length:] == IGNORE).all()


def test_images_are_filled_up_with_zeros_in_every_dimension() -> None:
    small, large = ({"pixel_values": torch.ones(1, tiles, 3, side, side)} for tiles, side in ((2, 4), (3, 6)))
    batch = collate([small, large], 0)["pixel_values"]
    assert batch.shape == (2, 3, 3, 6, 6)
    assert torch.equal(batch[0, :2, :, :4, :4], small["pixel_values"][0])
    assert batch[0].sum() == small["pixel_values"].sum()
    assert torch.equal(batch[1], large["pixel_values"][0])


def test_an_answer_without_tokens_is_refused(encode: Encoder) -> None:
    with pytest.raises(InputError, match="answer without tokens"):
        encode.answered(Sample("x", (pico.picture(0),), "what ?", " ", "kind"))


def test_a_question_without_words_is_refused(encode: Encoder) -> None:
    with pytest.raises(InputError, match="sample x: the question is empty"):
        encode.question(Sample("x", (pico.picture(0),), " <image>\n", "yes", "kind"))


def test_a_slot_in_the_question_is_dropped(encode: Encoder) -> None:
    sample = samples(1)[0]
    slotted = encode.question(replace(sample, question=f"<image>\n{sample.question}"))
    assert torch.equal(slotted["input_ids"], encode.question(sample)["input_ids"])


def test_a_question_that_leaves_no_room_for_an_answer_is_refused(encode: Encoder) -> None:
    sample = samples(1)[0]
    used = encode.question(sample)["input_ids"].shape[1]
    assert encode.max_positions is not None
    words = encode.max_positions - used
    assert encode.question(replace(sample, question=f"{sample.question} {'two ' * (words - 1)}"))
    with pytest.raises(TooLong, match=r"sample \S+ has 48 tokens, the model takes 48, an answer too: shorten it"):
        encode.question(replace(sample, question=f"{sample.question} {'two ' * words}"))


def test_an_image_that_becomes_too_many_tokens_is_refused_before_the_model_sees_it(tmp_path: Path) -> None:
    folder = pico.save("idefics3", tmp_path)
    config = folder / "processor_config.json"
    text = json.loads(config.read_text())
    del text["image_processor"]["size"]  # the default is 1,456 pixels, which are 2,000 tiles here
    config.write_text(json.dumps(text))
    saved = SavedModel.find(str(folder))
    encode = Encoder(saved.load_processor(), saved.family, saved.load())
    with pytest.raises(TooLong, match=r"has \d{4,} tokens, the model takes 128"):
        encode.inputs(samples(1)[0])


def test_a_model_that_looks_at_one_image_says_so(tmp_path: Path) -> None:
    saved = SavedModel.find(str(pico.save("blip-2", tmp_path)))
    encode = Encoder(saved.load_processor(), saved.family, saved.load())
    with pytest.raises(InputError, match="a blip-2 model takes one image, but 2 were given"):
        encode.question(replace(samples(1)[0], images=(pico.picture(0), pico.picture(1))))


def llama_like() -> PreTrainedTokenizerFast:
    """A tokenizer that marks the beginning of a word, and puts such a mark before every text too."""
    words = ["<unk>", "▁", "▁USER:", "▁ASSISTANT:", "▁red", "▁what", "▁?", "<image>"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def test_the_answers_tokens_are_those_that_follow_the_prompt(encode: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    words = llama_like()
    assert words(" red")["input_ids"] == [1, 4], "the test needs a tokenizer that splits an answer by itself otherwise"
    monkeypatch.setattr(encode.processor, "tokenizer", words)
    monkeypatch.setattr(encode, "question", lambda sample: {"input_ids": torch.zeros(1, 3, dtype=torch.long)})
    labels = encode.answered(Sample("x", (pico.picture(0),), "what ?", "red", "kind"))["labels"]
    assert labels[labels != IGNORE].tolist() == [4, 2]
