"""Loading transformers' processors, without what they need for videos."""

from pathlib import Path
from typing import Any

Processor = Any  # transformers' processors share no typed base


def load(folder: Path, kind: Any = None) -> Processor:
    """Load a checkpoint's processor: the kind that the checkpoint names, or the one given."""
    from transformers import AutoProcessor

    processor = (kind or AutoProcessor).from_pretrained(folder, local_files_only=True)
    template = folder / "chat_template.jinja"
    if processor.chat_template is None and template.is_file():  # Blip2Processor saves its template and forgets it
        processor.chat_template = template.read_text(encoding="utf-8")
    return processor


def for_pictures(kind: Any) -> Any:
    """Return a kind of processor without its part for videos, which needs torchvision.

    transformers reads from the arguments of a processor's constructor which parts and settings it has: this one's takes no
    video processor.
    """

    class ForPictures(kind):  # type: ignore[misc]
        def __init__(
            self, image_processor: Any, tokenizer: Any, image_seq_length: int | None = None, chat_template: Any = None
        ) -> None:
            settings = {} if image_seq_length is None else {"image_seq_length": image_seq_length}
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **settings)

        def __reduce__(self) -> tuple[Any, ...]:  # a class inside a function cannot be found by its name
            return _without_parts, (kind,), vars(self)

    ForPictures.__name__ = kind.__name__  # it is what a saved processor is called
    return ForPictures


def _without_parts(kind: Any) -> Any:
    made = for_pictures(kind)
    return made.__new__(made)
