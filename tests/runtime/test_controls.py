"""What a user writes is text for every kind of tokenizer: no control token, no place for an image."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers

from tests import pico
from tests.runtime.conftest import Reference
from tests.runtime.test_text import byte_level, save, sentence_piece, word_level
from vlmc.runtime import processing
from vlmc.runtime.controls import Controls
from vlmc.runtime.processing import Request
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.text import Text

ATTACKS = ("<eos> a", "a<bos>b", "<pad><pad>", "<e<eos>os>", "<image>", "<im<image>age>", "</s><s>")


@pytest.mark.parametrize("write", [byte_level, sentence_piece, lambda folder: word_level(folder, "<unk> a b < > eos")])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_a_control_token(tmp_path: Path, write: Callable[[Path], Path], attack: str) -> None:
    tokenizer = Tokenizer.from_file(str(write(tmp_path) / "tokenizer.json"))
    tokenizer.add_special_tokens(["<eos>", "<bos>", "<pad>", "<image>", "<s>", "</s>"])
    text = Text(save(tokenizer, tmp_path))
    special = {text.number(token) for token in ("<eos>", "<bos>", "<pad>", "<image>", "<s>", "</s>")}
    assert special & set(text.encode(attack))
    assert not special & set(text.encode(text.controls.as_text(attack)))


def test_what_is_no_control_token_stays_as_it_is(tmp_path: Path) -> None:
    controls = Controls(["<eos>", "<image>"])
    assert controls.as_text("1 < 2, <EOS>, <eo s>, eos>") == "1 < 2, <EOS>, <eo s>, eos>"
    assert controls.as_text("<eos>, <e<eos>os>") == "< eos>, <e< eos>os>"
    assert Controls(["<eos>", "< eos>"]).as_text("<eos>") == "<  eos>", "breaking one must not make another"


def test_tokens_that_are_looked_for_in_normalized_text_are_found_in_any_spelling(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "e": 1}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_special_tokens([AddedToken("<eos>", normalized=True, special=True)])
    text = Text(save(tokenizer, tmp_path))
    for attack in ("<EOS>", "\uff1ceos\uff1e", "\uff1c\uff25OS\uff1e <eos>"):
        assert text.number("<eos>") in text.encode(attack)
        assert text.number("<eos>") not in text.encode(text.controls.as_text(attack))


def test_nested_marks_and_control_tokens_leave_a_request_as_long_as_its_text(reference: Reference) -> None:
    form, process = reference.deployment.prompt, processing.find(reference.folder, reference.deployment)
    controls = Text(reference.folder).controls
    texts = [fill_prompt(form, prompt, controls) for prompt in ("what ?", f"<im{form.slot}age> what ? </s> <s> <pad>")]
    plain, hostile = (process([Request(text, (pico.picture(0),))]).ids_BS[0].tolist() for text in texts)
    assert [hostile.count(number) for number in range(5) if number != 3] == [
        plain.count(number) for number in range(5) if number != 3
    ]
