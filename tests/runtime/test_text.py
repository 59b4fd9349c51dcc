"""Token ids and texts are those of transformers' tokenizers; what streams is never taken back."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime import processing
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.text import Text
from vlmc.toolchain.deploy.probes import asked


@pytest.mark.parametrize("question", [*pico.QUESTIONS, "two\nlines  and   spaces", "unknown wörds 漢字 <s> </s>"])
def test_ids_are_those_of_the_processor(reference: Reference, question: str) -> None:
    image = pico.picture(0)
    expected = reference.encoder.question(asked("", question, image))["input_ids"].numpy()
    process = processing.find(reference.folder, reference.deployment)
    found = process([Request(fill_prompt(reference.deployment.prompt, question), (image,))])
    np.testing.assert_array_equal(found.ids_BS, expected)


def byte_level(folder: Path) -> Path:
    """Write a byte-level BPE tokenizer without merges: every byte of a character is a token."""
    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return save(tokenizer, folder)


def word_level(folder: Path, words: str) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words.split())}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return save(tokenizer, folder, clean_up_tokenization_spaces=True)


def save(tokenizer: Tokenizer, folder: Path, **config: object) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def streamed(text: Text, ids: list[int]) -> list[str]:
    return [text.settled(ids[: end + 1]) for end in range(len(ids))]


@pytest.mark.parametrize("answer", ["a café 🙂 naïve", " 漢字", "🏳️‍🌈 flag", "x"])
def test_parts_of_characters_wait(tmp_path: Path, answer: str) -> None:
    text = Text(byte_level(tmp_path))
    ids = text.encode(answer)
    shown = streamed(text, ids)
    assert all(text.decode(ids).startswith(part) and "\ufffd" not in part for part in shown)
    assert shown[-1] == text.decode(ids) == answer.strip()


def test_spaces_before_punctuation_go_as_in_transformers(tmp_path: Path) -> None:
    answer = "<unk> it does n't move , it 's ' red ' ."
    text = Text(word_level(tmp_path, answer))
    ids = text.encode(answer)
    assert text.decode(ids) == AutoTokenizer.from_pretrained(tmp_path).decode(ids)
    assert all(text.decode(ids).startswith(part) for part in streamed(text, ids))


def test_missing_and_damaged_tokenizers_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        Text(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path)
