"""What goes into each family's model: its own processor's prompt and tensors, labels on the answer alone, batches."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import pico
from tests.families.conftest import Built, samples
from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import IGNORE
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.families import FAMILIES
from vlmc.toolchain.repair.feeding import answer_logits, find_answers

ENDS = dict.fromkeys(("qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3"), "<end>")
DOCUMENTED = {
    "instructblip": "what is the largest digit ?",
    "instructblip-t5": "what is the largest digit ?",
    "paligemma": "<image>answer en what is the largest digit ?",
}
TWO_IMAGES = [name for name in pico.FAMILIES if "blip" not in name]


def test_labels_cover_the_answer_and_its_end_only(built: Built) -> None:
    sample = samples()[1]
    asked, answered = built.encoder.question(sample), built.encoder.answered(sample)
    length = 0 if built.source.family.encoder_decoder else asked["input_ids"].shape[1]
    assert torch.equal(answered["input_ids"][:, : asked["input_ids"].shape[1]], asked["input_ids"])
    assert (answered["labels"][:, :length] == IGNORE).all()
    tail = answered["labels"][0, length:].tolist()
    assert built.encoder.processor.tokenizer.decode(tail) == f"{sample.answer} {ENDS.get(built.name, '</s>')}"
    grown = {name for name in asked if asked[name].shape != answered[name].shape}
    text = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"} & set(asked)
    assert grown == (set() if built.source.family.encoder_decoder else text)


def test_another_process_encodes_the_same(built: Built) -> None:
    sample = samples()[1]
    ours, theirs = built.encoder.answered(sample), pickle.loads(pickle.dumps(built.encoder)).answered(sample)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_prompt_is_the_models_own(built: Built) -> None:
    sample, processor = samples()[0], built.encoder.processor
    if processor.chat_template:
        content = [{"type": "image", "image": sample.load_image()}, {"type": "text", "text": sample.question}]
        turn = {"role": "user", "content": content}
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        expected = processor.apply_chat_template([turn], add_generation_prompt=True, **options)
    else:
        expected = processor(images=sample.load_image(), text=DOCUMENTED[built.name], return_tensors="pt")
    found = built.encoder.question(sample)
    assert set(found) == set(expected) - {"labels"}
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("name", "template", "expected"),
    [
        ("llava", None, "USER: <image><image>\n{prompt} ASSISTANT:"),
        ("blip-2-t5", "{{ messages[0]['content'][-1]['text'] }}<image>", "{prompt}"),
        ("llava_next", None, "this llava_next model has no chat template"),
        ("gemma3", "{{ messages[0]['content'][-1]['text'] }}", "chat template has 0 places for 2 images"),
        ("gemma3", "<start_of_image> {{ messages[1] }}", "chat template does not contain the question exactly once"),
        ("gemma3", "{{ raise_exception('no') }}", "chat template cannot be rendered: no"),
    ],
)
def test_prompts_with_other_templates_and_with_none(name: str, template: str | None, expected: str) -> None:
    processor, images = pico.FAMILIES[name].processor(), 1 if "blip" in name else 2
    processor.chat_template = template
    if "chat template" in expected:
        with pytest.raises(InputError, match=expected):
            FAMILIES[name].prompt(processor, images)
    else:
        assert FAMILIES[name].prompt(processor, images) == expected


@pytest.mark.parametrize("built", ENDS, indirect=True)
def test_an_answered_question_is_the_conversation_that_the_template_writes(built: Built) -> None:
    sample = samples()[1]
    asked = [{"type": "image", "image": sample.load_image()}, {"type": "text", "text": sample.question}]
    answered = [{"type": "text", "text": sample.answer}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    expected = built.encoder.processor.apply_chat_template(turns, **options)
    found = built.encoder.inputs(sample)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("built", ["paligemma"], indirect=True)
def test_paligemmas_answer_is_the_suffix_that_its_processor_makes(built: Built) -> None:
    sample = samples()[1]
    text = f"<image>answer en {sample.question}"
    processor = built.encoder.processor
    expected = processor(images=sample.load_image(), text=text, suffix=sample.answer, return_tensors="pt")
    found = built.encoder.answered(sample)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert set(found["token_type_ids"][0].tolist()) == {0, 1}


def logits_alone(built: Built, sample: Sample) -> Tensor:
    """The logits that predict the answer's tokens, from plain transformers."""
    labels = built.encoder.answered(sample)["labels"][0]
    with torch.no_grad():
        logits: Tensor = built.model(**built.encoder.inputs(sample)).logits[0]
    return logits if built.source.family.encoder_decoder else logits[:-1][labels[1:] != IGNORE]


def together(built: Built, some: list[Sample]) -> Tensor:
    """The same logits of a batch, in the samples' order."""
    encoded = built.encoder.collate([built.encoder.answered(sample) for sample in some])
    with torch.no_grad():
        return answer_logits(built.model, find_answers(encoded, apart=built.source.family.encoder_decoder))


@pytest.mark.integration
def test_a_batch_gives_the_logits_of_its_samples_alone(built: Built) -> None:
    some = samples()
    alone = [logits_alone(built, sample) for sample in some]
    torch.testing.assert_close(together(built, some), torch.cat(alone), atol=1e-4, rtol=1e-4)
    lengths = {built.encoder.answered(sample)["labels"].shape[1] for sample in some}
    assert len(lengths) > 1, "the test needs padding"
    assert (alone[0][-1] - alone[2][-1]).abs().max() > 1e-2, "the test needs answers that differ"


@pytest.mark.parametrize("built", TWO_IMAGES, indirect=True)
def test_several_images_are_seen_in_their_order(built: Built) -> None:
    first, second = pico.picture(0, 32, 32), pico.picture(1, 40, 70)
    pair, swapped = (Sample("", (one, other), "which ?", "red", "") for one, other in ((first, second), (second, first)))
    single = Sample("", (first,), "which ?", "two red", "")
    alone = [logits_alone(built, sample) for sample in (pair, single, swapped)]
    torch.testing.assert_close(together(built, [pair, single, swapped]), torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert (alone[0] - alone[2]).abs().max() > 1e-3


def test_visual_tokens_are_those_that_the_image_changes(built: Built) -> None:
    family, seen = built.source.family, list[Tensor]()
    tower = next(tower for tower in family.towers if tower.part == "language" and tower.mixed)
    handle = family.blocks(built.model, tower)[0][1].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    for seed in (5, 6):
        inputs = built.encoder.inputs(Sample("", (pico.picture(seed, 40, 70),), "which ?", "red", ""))
        with torch.no_grad():
            built.model(**inputs)
    handle.remove()
    visual_BT = family.visual_tokens(built.model, inputs)
    assert visual_BT.dtype == torch.bool
    assert visual_BT.any()
    changed_BT = (seen[0] != seen[1]).any(-1)
    assert not (changed_BT & ~visual_BT).any()
    still_ND = seen[0][visual_BT & ~changed_BT]
    assert len(still_ND) < visual_BT.sum() / 2
    if built.name == "llava_next":  # a learned vector stands after every row of tiles
        assert torch.equal(still_ND, built.model.get_parameter("model.image_newline").expand_as(still_ND))
    else:
        assert len(still_ND) == 0


def test_control_tokens_in_a_question_or_an_answer_are_text(built: Built) -> None:
    tokenizer = built.encoder.processor.tokenizer
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    hostile = " ".join(tokenizer.all_special_tokens)
    one = samples()[0]
    other = replace(one, question=f"{one.question} {hostile.replace('<image>', '')} <im<image>age>".replace("<image>", ""))
    plain, asked = built.encoder.question(one)["input_ids"], built.encoder.question(other)["input_ids"]
    assert asked.shape[1] > plain.shape[1]
    for number in special:
        assert int((asked == number).sum()) == int((plain == number).sum()), tokenizer.decode([number])
    for number in special:
        told = [built.encoder.answered(replace(one, answer=text))["labels"] for text in ("seven", f"seven {hostile}")]
        assert int((told[0] == number).sum()) == int((told[1] == number).sum())
