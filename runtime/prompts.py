"""From a question to the text of the model's input."""

from vlmc.runtime.artifact import Serving
from vlmc.runtime.errors import InputError


def fill_prompt(serving: Serving, prompt: str, *, raw: bool = False) -> str:
    """Return the model's whole input text: the question in the model's own template, with one slot for the picture.

    A slot that stands in the question (as in LLaVA's data) is dropped, for the template has its own. With `raw`, or where
    the model has no template, the prompt is the whole input already.

    Raises:
        InputError: the prompt is empty, or as a whole input has not exactly one slot for the picture.
    """
    slot = serving.image_slot
    if not prompt.replace(slot, "").strip():
        raise InputError("the prompt is empty: ask a question, such as --prompt 'what is shown'")
    if prompt.count(slot) > 1:
        raise InputError(f"the prompt has {prompt.count(slot)} slots for pictures ({slot}), and there is one picture")
    if not raw and serving.prompt is not None:
        return serving.prompt.replace("{prompt}", prompt.replace(slot, "").strip())
    if slot not in prompt:
        raise InputError(f"the prompt has no slot for the picture: put {slot} where the picture goes")
    return prompt
