"""Prompts from transformers' processors, the same way for all families."""

from collections.abc import Sequence
from typing import Any

from vlmc.runtime.controls import Controls
from vlmc.runtime.errors import InputError, shortened
from vlmc.toolchain.data.sample import MARK

Processor = Any  # transformers' processors share no typed base

QUESTION = "{prompt}"
_ANSWER = "{answer}"
IMAGE = {"type": "image"}
Piece = dict[str, str]
"""A part of a turn in a chat template: `IMAGE`, or {"type": "text", "text": ...}."""


def controls_of(processor: Processor, token: str) -> Controls:
    """Return the control tokens of a processor's tokenizers, and the token of an image."""
    some = (getattr(processor, name, None) for name in ("tokenizer", "qformer_tokenizer"))
    added = [one for tokenizer in some if tokenizer is not None for one in tokenizer.added_tokens_decoder.values()]
    return Controls.of(added, token)


def pieces_of(question: str, images: int, token: str, controls: Controls) -> list[Piece]:
    """Return a question's images and texts in order; without marks all images come first.

    The model's own image token is removed from the text; control tokens that are left become text.

    Raises:
        InputError: the number of marks is not the number of images, or there is no text.
    """
    marks = question.count(MARK)
    if marks not in (0, images):
        raise InputError(f"the question has {marks} marks {MARK} for {images} images")
    parts = question.split(MARK) if marks else [*[""] * images, question]
    texts = [controls.as_text(part.replace(token, "")) for part in parts]
    if not "".join(texts).strip():
        raise InputError("the question is empty")
    if not "".join(texts[:-1]).strip():  # all images come first
        texts = [*[""] * images, texts[-1].strip()]
    pieces = [piece for text in texts for piece in (IMAGE, _text(text))][1:]
    return [piece for piece in pieces if piece is IMAGE or piece["text"]]


def rendered_template(processor: Processor, asked: Sequence[Piece], system: str = "") -> str | None:
    """Render the processor's chat template for a question, after the system prompt; None without a template.

    A beginning-of-text token in the template is removed if the tokenizer adds it anyway.

    Raises:
        InputError: the template does not render, or omits a text.
    """
    if not processor.chat_template:
        return None
    told = [{"role": "system", "content": [_text(system)]}] if system else []
    text = _render(processor, [*told, {"role": "user", "content": list(asked)}], add_generation_prompt=True)
    if system.strip() not in text:
        raise InputError("the model's chat template does not contain the system prompt")
    for shown in (piece["text"].strip() for piece in asked if piece is not IMAGE):
        if shown not in text or (shown == QUESTION and text.count(shown) > 1):
            raise InputError("the model's chat template does not contain the question exactly once")
    return _without_bos(processor.tokenizer, text)


def after_answers(processor: Processor) -> list[int]:
    """Return the tokens that the chat template writes after an answer; none without a template."""
    if not processor.chat_template:
        return []
    asked, answered = (
        {"role": "user", "content": [IMAGE, _text(QUESTION)]},
        {"role": "assistant", "content": [_text(_ANSWER)]},
    )
    text = _render(processor, [asked, answered], add_generation_prompt=False)
    after = text.partition(_ANSWER)[2]
    return list(processor.tokenizer(after, add_special_tokens=False)["input_ids"])


_MOST_TOKENS = 1 << 31


def stop_ids(*configs: Any) -> tuple[int, ...]:
    """Return the end-of-answer ids of the first configuration that has any.

    Raises:
        InputError: none has.
    """
    for config in configs:
        found = getattr(config, "eos_token_id", None)
        if found is None:
            continue
        ids = tuple(found) if isinstance(found, list | tuple) else (found,)
        if not all(type(number) is int and 0 <= number < _MOST_TOKENS for number in ids):
            raise InputError(f"the model's end of an answer is no token: eos_token_id is {shortened(str(found), 100)}")
        return ids
    raise InputError("the model does not say which token ends an answer (eos_token_id)")


def _text(text: str) -> Piece:
    return {"type": "text", "text": text}


def _render(processor: Processor, turns: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    try:
        return str(processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False))
    except Exception as error:  # a template is a program and may raise anything
        raise InputError(f"the model's chat template cannot be rendered: {' '.join(str(error).split())[:200]}") from None


def _without_bos(tokenizer: Any, text: str) -> str:
    bos = tokenizer.bos_token
    adds = bos is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(bos) if adds else text
