"""Token ids and texts are those of transformers' tokenizers; what streams is never taken back."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime.artifact import ImagePipeline, Serving
from vlmc.runtime.errors import InputError
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.text import Text
from vlmc.toolchain.data.sample import Sample

SERVING = Serving(
    image=ImagePipeline(),
    image_token_id=0,
    image_tokens=2,
    image_position="front",
    prompt=None,
    eos_token_ids=(1,),
    max_positions=64,
)


@pytest.mark.parametrize("question", [*pico.QUESTIONS, "two\nlines  and   spaces", "unknown wörds 漢字 <s> </s>"])
def test_ids_are_those_of_the_processor(reference: Reference, question: str) -> None:
    expected = reference.encoder.question(Sample("", (pico.picture(0),), question, "", ""))["input_ids"][0].tolist()
    assert Text(reference.folder, reference.serving).encode(fill_prompt(reference.serving, question)) == expected


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
    text = Text(byte_level(tmp_path), SERVING)
    ids = text.encode(answer)[2:]
    shown = streamed(text, ids)
    assert all(text.decode(ids).startswith(part) and "\ufffd" not in part for part in shown)
    assert shown[-1] == text.decode(ids) == answer.strip()


def test_spaces_before_punctuation_go_as_in_transformers(tmp_path: Path) -> None:
    answer = "<unk> it does n't move , it 's ' red ' ."
    text = Text(word_level(tmp_path, answer), SERVING)
    ids = text.encode(answer)[2:]
    assert text.decode(ids) == AutoTokenizer.from_pretrained(tmp_path).decode(ids)
    assert all(text.decode(ids).startswith(part) for part in streamed(text, ids))


def test_picture_token_under_another_number_is_told(reference: Reference) -> None:
    wrong = reference.serving.model_copy(update={"image_position": "inline", "image_token_id": 9})
    with pytest.raises(InputError, match="has <image> as token 4, the manifest says 9"):
        Text(reference.folder, wrong)


def test_missing_and_damaged_tokenizers_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        Text(tmp_path, SERVING)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path, SERVING)
