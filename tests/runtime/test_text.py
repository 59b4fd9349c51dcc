"""Token ids and texts are those of transformers' tokenizers; what streams is never taken back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
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
    found = process([Request(fill_prompt(reference.deployment.prompt, question, Text(reference.folder).controls), (image,))])
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


def sentence_piece(folder: Path) -> Path:
    """Write a tokenizer in the form of LLaMA's: `▁` for a space, and bytes of their own for what it lacks."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdef.", "▁a", "ab"]
    merges = [("▁", "a"), ("a", "b")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return save(tokenizer, folder)


def streamed(text: Text, ids: list[int]) -> list[str]:
    """Return what is shown after each token and after the last."""
    stream, shown = text.stream(), [""]
    for token in ids:
        shown.append(shown[-1] + stream.add(token))
        assert shown[-1] == stream.shown
    assert stream.tokens == ids
    return [*shown[1:], shown[-1] + stream.end()]


@pytest.mark.parametrize("write", [byte_level, sentence_piece])
@pytest.mark.parametrize("answer", ["a café 🙂 naïve", " 漢字", "🏳️‍🌈 flag", "ab", "  a  b ", "a\n\nb"])
def test_parts_of_characters_wait(tmp_path: Path, write: Callable[[Path], Path], answer: str) -> None:
    text = Text(write(tmp_path))
    ids = text.encode(answer)
    shown = streamed(text, ids)
    assert all(text.decode(ids).startswith(part) and "\ufffd" not in part for part in shown)
    assert shown[-1] == text.decode(ids) == answer.strip()
    assert len(set(shown)) > 1


@pytest.mark.parametrize("write", [byte_level, sentence_piece])
def test_whatever_the_tokens_are_nothing_is_taken_back(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Bytes that are no character, special tokens between them, spaces at the ends: all that sampling may bring."""
    text, random = Text(write(tmp_path)), np.random.default_rng(0)
    likely = np.array([text.number(token) for token in ("a", "b", "Ġ", "▁", "</s>", "</s>")])
    likely = likely[likely != np.array(None)]
    for length in random.integers(1, 30, 300):
        rare = random.integers(0, 256, length)
        ids = [int(number) for number in np.where(random.random(length) < 0.6, random.choice(likely, length), rare)]
        shown = streamed(text, ids)
        assert all(text.decode(ids).startswith(part) for part in shown), ids
        assert shown[-1] == text.decode(ids)


def test_text_comes_as_soon_as_it_can(tmp_path: Path) -> None:
    text = Text(sentence_piece(tmp_path))
    ids = [text.number(token) or 0 for token in ("<s>", "▁a", "b", "▁", "c", "<0xC3>", "<0xA9>", "d", "</s>")]
    assert streamed(text, ids) == ["", "a", "ab", "ab", "ab c", "ab c", "ab c", "ab céd", "ab céd", "ab céd"]


def test_decoder_that_takes_back_what_it_gave_is_waited_for(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "x")])
    text = Text(save(tokenizer, tmp_path))
    assert text.decode([2, 0, 1, 2]) == "cxc"
    assert streamed(text, [2, 0, 1, 2])[:4] == ["c", "ca", "ca", "ca"]


def test_spaces_before_punctuation_go_as_in_transformers(tmp_path: Path) -> None:
    answer = "<unk> it does n't move , it 's ' red ' ."
    text = Text(word_level(tmp_path, answer))
    ids = text.encode(answer)
    assert text.decode(ids) == AutoTokenizer.from_pretrained(tmp_path).decode(ids)
    shown = streamed(text, ids)
    assert all(text.decode(ids).startswith(part) for part in shown)
    assert shown[-1] == text.decode(ids)


def test_missing_and_damaged_tokenizers_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        Text(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read"):
        Text(tmp_path)


def stopped(text: Text, ids: list[int], *stop: str) -> tuple[str, int, str]:
    """Return what was shown, after how many tokens the text ended, and the whole text."""
    stream, shown = text.stream(stop), ""
    for token in ids:
        shown += stream.add(token)
        if stream.stopped:
            break
    return shown + stream.end(), len(stream.tokens), stream.text


@pytest.mark.parametrize("write", [byte_level, sentence_piece])
def test_a_text_ends_before_its_first_stop_string(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    text = Text(write(tmp_path))
    ids = text.encode("ab c\n\nab é d")
    for stop, expected in (("\n\n", "ab c"), ("é", "ab c\n\nab"), ("b", "a"), ("c\nx", "ab c\n\nab é d")):
        shown, count, whole = stopped(text, ids, stop, "never")
        assert shown == whole == expected
        assert (count < len(ids)) == (expected != "ab c\n\nab é d")
    assert stopped(text, ids, "d", "b c")[0] == "a"


def test_the_beginning_of_a_stop_string_is_held_back(tmp_path: Path) -> None:
    text = Text(byte_level(tmp_path))
    for given, shown in (("a E", "a"), ("a E b", "a E b"), ("a EN", "a"), ("a EN E", "a EN"), ("a EN END b", "a EN")):
        stream = text.stream(("END",))
        for token in text.encode(given):
            if not stream.stopped:
                stream.add(token)
        assert stream.shown == shown
        assert stream.stopped == ("END" in given)


def test_a_stop_string_of_bytes_ends_a_text_at_once(tmp_path: Path) -> None:
    """A tokenizer that writes a line break as a byte would decode it only with the token after it."""
    text = Text(sentence_piece(tmp_path))
    ids = [text.number(token) or 0 for token in ("▁a", "<0x0A>", "<0x0A>", "b")]
    assert stopped(text, ids, "\n") == ("a", 2, "a")
