"""Conversations are put into the model's own template as transformers does, and what people write stays text."""

from pathlib import Path
from typing import Any

import pytest

from tests import pico
from tests.runtime.conftest import Reference
from vlmc.runtime.chat import ChatTemplate
from vlmc.runtime.errors import InputError
from vlmc.runtime.messages import Message
from vlmc.runtime.model import Model
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.text import Text

IMAGE = pico.picture(0)
ASKED = Message("user", [IMAGE, "what is it ?"])
TURNS = [ASKED, Message("assistant", "the digit is two"), Message("user", "how many ?")]


def template(reference: Reference) -> ChatTemplate:
    return ChatTemplate(reference.deployment.prompt, Text(reference.folder), reference.folder)


def plain(message: Message) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts]
    return {"role": message.role, "content": parts}


def test_turns_are_those_of_transformers(deployed: Reference) -> None:
    processor = deployed.encoder.processor
    if processor.chat_template is None:
        with pytest.raises(InputError, match="no chat template: it answers one question"):
            template(deployed).fill(TURNS)
        return
    expected = processor.apply_chat_template([plain(turn) for turn in TURNS], add_generation_prompt=True, tokenize=False)
    bos, form = processor.tokenizer.bos_token, deployed.deployment.prompt
    expected = expected.removeprefix(bos) if bos else expected
    assert template(deployed).fill(TURNS) == (form.slot if form.place == "front" else "") + expected


def test_one_turn_is_what_generate_asks(deployed: Reference) -> None:
    form = deployed.deployment.prompt
    assert template(deployed).fill([ASKED]) == fill_prompt(form, "what is it ?")


def test_white_space_around_a_turn_is_dropped(reference: Reference) -> None:
    spaced = Message("user", [IMAGE, "\n what is", " it ?  "])
    assert template(reference).fill([spaced]) == template(reference).fill([ASKED])


def test_control_tokens_and_slots_in_a_text_are_text(reference: Reference) -> None:
    form, text = reference.deployment.prompt, Text(reference.folder)
    clean = text.encode(template(reference).fill([Message("user", [IMAGE, "what"]), *TURNS[1:]]))
    for odd in (form.slot, "</s>", form.slot[:2], "<<s>s>"):
        tail = form.slot[2:] if odd == form.slot[:2] else ""  # one text in two parts must not make one either
        said = Message("user", [IMAGE, f"what {odd}", tail])
        answered = Message("assistant", f"{odd} two")
        made = text.encode(template(reference).fill([said, answered, TURNS[2]]))
        controls = {text.number(token) for token in (form.slot, "<s>", "</s>", "<pad>")}
        assert [token for token in made if token in controls] == [token for token in clean if token in controls]


def test_the_answer_is_that_of_generate(reference: Reference) -> None:
    with Model.from_graphs(reference.folder, reference.deployment, reference.folder / "onnx", threads=1) as model:
        assert model.chat([ASKED], max_new_tokens=6) == model.generate(IMAGE, "what is it ?", max_new_tokens=6)
        assert model.chat(TURNS, max_new_tokens=6).prompt_tokens > model.chat([ASKED], max_new_tokens=6).prompt_tokens


WRONG = [
    ([], "does not end with a user's turn: there is nothing to answer"),
    (TURNS[:2], "does not end with a user's turn"),
    ([*TURNS[:2], Message("user", " ")], "the last turn has no text: ask a question"),
    (["what ?"], "a turn is a str: give a Message"),
]


@pytest.mark.parametrize(("turns", "message"), WRONG)
def test_conversations_that_cannot_be_answered_are_told(reference: Reference, turns: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        template(reference).fill(turns)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no system turns') }}", "rejects the conversation: no system turns"),
        ("{{ messages[9].content }}", "rejects the conversation: "),
        ("{{ ''.__class__.__mro__ }}", "rejects the conversation: access to attribute '__class__'"),
        ("{% for x in", "rejects the conversation: "),
        ("{{ messages[0]['content'][1]['text'] }}", "leaves out what the assistant says"),
    ],
)
def test_templates_that_cannot_be_used_are_told(reference: Reference, source: str, message: str) -> None:
    form = reference.deployment.prompt.model_copy(update={"chat_template": source})
    with pytest.raises(InputError, match=message):
        ChatTemplate(form, Text(reference.folder), reference.folder).fill(TURNS)


def test_marks_of_training_and_loops_are_known(reference: Reference) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{% generation %}x{% endgeneration %}"
        "{% endfor %}{{ messages | tojson }}"
    )
    form = reference.deployment.prompt.model_copy(update={"chat_template": source, "place": "inline"})
    made = ChatTemplate(form, Text(reference.folder), reference.folder).fill(TURNS)
    assert made.startswith('x[{"role": "user", "content": [{"type": "image"}')


def test_a_model_without_a_template_answers_one_question(reference: Reference) -> None:
    form = reference.deployment.prompt.model_copy(update={"chat_template": None})
    bare = ChatTemplate(form, Text(reference.folder), reference.folder)
    assert bare.fill([ASKED]) == fill_prompt(form, "what is it ?")
    with pytest.raises(InputError, match="has no chat template: it answers one question"):
        bare.fill(TURNS)


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("root", "x", "role is 'root': give one of system, user, assistant"),
        ("user", b"x", "content is a bytes: give a text, or a list of parts"),
        ("user", [3], "a part of a message is a int"),
        ("assistant", [IMAGE], "the assistant shows an image: only the user may"),
    ],
)
def test_wrong_messages_are_told(role: Any, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Message(role, content)


def test_a_text_is_never_a_path() -> None:
    message = Message("user", [Path("a.png"), "b.png", " c"])
    assert message.parts == (Path("a.png"), "b.png c")
    assert message.images == (Path("a.png"),)
