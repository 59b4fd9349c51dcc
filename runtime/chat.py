"""From the turns of a conversation to the text of the model's input, by its own chat template."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

from vlmc.runtime.controls import Controls
from vlmc.runtime.deployment import Prompt
from vlmc.runtime.errors import InputError, one_line
from vlmc.runtime.json_text import read_json
from vlmc.runtime.messages import Message
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.text import Text


@final
class ChatTemplate:
    """A model's chat template, rendered as transformers does; `folder` holds its tokenizer.

    A model without one answers single questions.
    """

    def __init__(self, form: Prompt, text: Text, folder: Path) -> None:
        self._form, self._text = form, text
        self._tokens = _named_tokens(folder / "tokenizer_config.json")
        self._controls = text.controls.with_tokens(form.slot)

    def fill(self, messages: Sequence[Message]) -> str:
        """Return the model's whole input for a conversation that ends with a user's turn, with a slot for each image.

        Raises:
            InputError: there is no such turn or no text in it, the model has no template and there are several turns, or the
                template cannot be rendered or leaves something out.
        """
        _check(messages)
        if self._form.chat_template is None:
            return self._single(messages)
        turns = [_turn(message, self._controls) for message in messages]
        rendered = self._render(turns)
        _check_whole(rendered, turns)
        images = sum(len(message.images) for message in messages)
        return self._form.slot * images + rendered if self._form.place == "front" else rendered

    def _single(self, messages: Sequence[Message]) -> str:
        if len(messages) > 1:
            raise InputError("this model has no chat template: it answers one question, without turns before it")
        texts = [part for part in messages[0].parts if isinstance(part, str)]
        return fill_prompt(self._form, " ".join(texts), self._controls, images=len(messages[0].images))

    def _render(self, turns: list[dict[str, Any]]) -> str:
        try:
            text = str(
                self._compiled.render(messages=turns, tools=None, documents=None, add_generation_prompt=True, **self._tokens)
            )
        except (MemoryError, InputError):
            raise
        except Exception as error:  # a template is a program and may raise anything
            raise InputError(f"the model's chat template rejects the conversation: {one_line(error)}") from None
        return text.removeprefix(self._added)

    @cached_property
    def _compiled(self) -> Any:
        """The template, compiled for the first conversation: Jinja takes its time, and single questions do without."""
        from vlmc.runtime.templates import environment

        return environment().from_string(self._form.chat_template or "")

    @cached_property
    def _added(self) -> str:
        """The beginning-of-text token that the tokenizer adds by itself, and a template must not add again."""
        bos = self._tokens.get("bos_token", "")
        return bos if bos and self._text.encode("a")[:1] == [self._text.number(bos)] else ""


def _check(messages: Sequence[Message]) -> None:
    for message in messages:
        if not isinstance(message, Message):
            raise InputError(f"a turn is a {type(message).__name__}: give a Message")
    if not messages or messages[-1].role != "user":
        raise InputError("the conversation does not end with a user's turn: there is nothing to answer")
    if not any(isinstance(part, str) and part.strip() for part in messages[-1].parts):
        raise InputError("the last turn has no text: ask a question")


def _turn(message: Message, controls: Controls) -> dict[str, Any]:
    """Return a turn as templates read it: without white space around it, and with no control token in its texts."""
    parts = [controls.as_text(part) if isinstance(part, str) else None for part in message.parts]
    texts = [index for index, part in enumerate(parts) if part is not None]
    for index in texts:
        part = str(parts[index])
        part = part.lstrip() if index == texts[0] else part
        parts[index] = part.rstrip() if index == texts[-1] else part
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts if part != ""]
    return {"role": message.role, "content": content}


def _check_whole(rendered: str, turns: list[dict[str, Any]]) -> None:
    for turn in turns:
        for part in turn["content"]:
            if part.get("text", "").strip() not in rendered:
                raise InputError(f"the model's chat template leaves out what the {turn['role']} says")


def _named_tokens(path: Path) -> dict[str, str]:
    """Return the tokens that a template may name, such as `bos_token`."""
    if not path.is_file():
        return {}
    try:
        found = read_json(path).items()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}; copy the file again") from None
    named = {name: value.get("content") if isinstance(value, dict) else value for name, value in found}
    return {name: value for name, value in named.items() if name.endswith("_token") and isinstance(value, str)}
