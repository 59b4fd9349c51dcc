"""From a question to the text of the model's input."""

from vlmc.runtime.controls import Controls
from vlmc.runtime.deployment import Prompt
from vlmc.runtime.errors import InputError

NONE = Controls()
_MOST, _PER_POSITION = 4_000_000, 64
"""Characters of a prompt: at most so many, and so many for each position of the model; no text has longer tokens."""


def fill_prompt(form: Prompt, prompt: str, controls: Controls = NONE, *, images: int = 1, raw: bool = False) -> str:
    """Return the model's whole input text: the question in the model's own template, with one slot for each image.

    A slot in the question (as in LLaVA's data) is dropped, because the template has its own; what is left is text, also
    where it spells a slot or one of the tokenizer's `controls`. For a model without a template, the prompt is the whole
    input, with its slots. With `raw` control tokens in it count too.

    Raises:
        InputError: the prompt is empty, or has more or fewer slots than there are images.
    """
    slot, as_text = form.slot, controls.with_tokens(form.slot).as_text
    found = prompt.count(slot)
    if not prompt.replace(slot, "").strip():
        raise InputError("the prompt is empty: ask a question, such as --prompt 'what is shown'")
    if found > images:
        raise InputError(f"the prompt has {found} slots for images ({slot}), and there are {_count(images)}")
    if not raw and form.question is not None:
        question = as_text(prompt.replace(slot, "")).strip()
        return form.question.replace("{images}", form.image * images, 1).replace("{prompt}", question, 1)
    if found < images:
        raise InputError(f"the prompt has {found} slots for {_count(images)}: put {slot} where each goes")
    return prompt if raw else slot.join(as_text(piece) for piece in prompt.split(slot))


def check_length(prompt: str, positions: int | None) -> None:
    """Check, before a prompt is split into tokens, that it may fit into a model's positions, and that it is Unicode.

    Raises:
        InputError: it is far too long, or has half a character, as text has that was not UTF-8.
    """
    most = _MOST if positions is None else min(_MOST, _PER_POSITION * positions)
    if len(prompt) > most:
        room = "" if positions is None else f", and this model has room for {positions} tokens"
        raise InputError(f"the prompt has {len(prompt):,} characters{room}: ask a shorter question")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the prompt is not valid UTF-8 at character {error.start}: write it in UTF-8") from None


def _count(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"
