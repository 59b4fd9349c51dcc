"""From a question to the text of the model's input."""

from vlmc.runtime.deployment import Prompt
from vlmc.runtime.errors import InputError


def fill_prompt(form: Prompt, prompt: str, *, images: int = 1, raw: bool = False) -> str:
    """Return the model's whole input text: the question in the model's own template, with one slot for each image.

    A slot in the question (as in LLaVA's data) is dropped, because the template has its own. With `raw`, or for a model
    without a template, the prompt is already the whole input.

    Raises:
        InputError: the prompt is empty, or has more or fewer slots than there are images.
    """
    slot = form.slot
    found = prompt.count(slot)
    if not prompt.replace(slot, "").strip():
        raise InputError("the prompt is empty: ask a question, such as --prompt 'what is shown'")
    if found > images:
        raise InputError(f"the prompt has {found} slots for images ({slot}), and there are {_count(images)}")
    if not raw and form.question is not None:
        question = prompt.replace(slot, "").strip()
        return form.question.replace("{images}", form.image * images, 1).replace("{prompt}", question, 1)
    if found < images:
        raise InputError(f"the prompt has {found} slots for {_count(images)}: put {slot} where each goes")
    return prompt


def _count(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"
