"""Conversations: LLaVA's `[{"from": "human", "value": ...}, ...]`, OpenAI's `[{"role": "user", "content": ...}, ...]`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.runtime.controls import without
from vlmc.runtime.errors import shortened
from vlmc.toolchain.data.sample import MARK

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
} | dict.fromkeys(("system", "developer"), "system")
_IMAGES = ("image", "image_url", "url", "path")
"""Keys of the image of a content part; without one it is the row's next image."""
_MUST = (
    'must be a list of {"from": "human" | "gpt", "value": text}, or of {"role": "user" | "assistant", "content": text or '
    "parts}, a question and its answer"
)


@dataclass(frozen=True)
class Asked:
    """A question with its answer, as in a row; `images` are the row's values for them, in any form."""

    question: str
    answer: str
    images: tuple[Any, ...] = ()
    system: str = ""
    kind: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Turn:
    role: str
    text: str
    images: tuple[Any, ...] = ()  # one for each mark, None for the row's next image
    listed: bool = False  # its content is a list of parts, which gives the place of each image
    kind: str | None = None


def count_questions(conversation: Any) -> tuple[int, bool]:
    """Return the number of questions with an answer, and whether a last one has none.

    Raises:
        ValueError: it is not a conversation; the message says why.
    """
    _, turns = _turns(conversation)
    return len(turns) // 2, len(turns) % 2 > 0


def questions(conversation: Any, images: Sequence[Any]) -> list[Asked]:
    """Return each question with its answer and all images up to its turn, those of earlier turns first.

    `images` are the row's: each mark in the text is the next one. Without marks all images come first, and so does a single
    image, wherever its mark is, as in LLaVA's own training.

    Raises:
        ValueError: it is not a conversation, or the marks do not match the images; the message says why.
    """
    system, turns = _turns(conversation)
    answers = (turn.text.strip() for turn in turns[1::2])
    found = zip(turns[::2], _shown(turns[::2], images), answers, strict=False)  # the last question may have no answer
    return [Asked(text.strip(), answer, shown, system, turn.kind) for turn, (text, shown), answer in found]


def placed(text: str, images: int) -> str:
    """Return the text of a single question; the marks go where the images come first anyway.

    Raises:
        ValueError: the number of marks is not the number of images.
    """
    marks = text.count(MARK)
    if images > 1 and marks not in (0, images):
        raise ValueError(f"{marks} marks {MARK} for {images} images")
    return (text if images > 1 else without(MARK, text)).strip()


def _shown(asked: Sequence[_Turn], images: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield each question's text with its marks, and all images up to its turn; None where a mark has no image at all."""
    listed = any(turn.listed and turn.images for turn in asked)
    if not any(turn.images for turn in asked) or (len(images) < 2 and not listed):
        marked = any(turn.images for turn in asked)
        yield from ((without(MARK, turn.text), tuple(images) or (None,) * marked) for turn in asked)
        return
    unnamed = sum(image is None for turn in asked for image in turn.images)
    if unnamed and unnamed != len(images):
        raise ValueError(f"{unnamed} marks {MARK} for {len(images)} images")
    left, shown = iter(images), tuple[Any, ...]()
    for turn in asked:
        text = MARK * len(shown) + turn.text if turn.images else turn.text
        shown += tuple(next(left) if image is None else image for image in turn.images)
        yield text, shown


def _turns(conversation: Any) -> tuple[str, list[_Turn]]:
    """Return the text of the system turns, and the other turns: questions and answers alternate."""
    listed = _listed(conversation)
    if not isinstance(listed, list) or not all(isinstance(turn, Mapping) for turn in listed):
        raise ValueError(f"conversations {_MUST}")
    turns = [_turn(entry) for entry in listed]
    others = [turn for turn in turns if turn.role != "system"]
    if len(others) < 2:
        raise ValueError(f"conversations {_MUST}")
    for number, turn in enumerate(others):
        if turn.role != ("user", "assistant")[number % 2] or (number % 2 and not turn.text.strip()):
            raise ValueError("turns must alternate, human, gpt, human, gpt (user, assistant), and no answer may be empty")
    return "\n".join(turn.text.strip() for turn in turns if turn.role == "system"), others


def _turn(entry: Mapping[str, Any]) -> _Turn:
    role = entry.get("role") if "role" in entry else entry.get("from")
    content = entry.get("content") if "role" in entry else entry.get("value")
    kind = str(entry["kind"]) if entry.get("kind") else None
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"conversations {_MUST}; a turn is from {shortened(repr(role), 60)}")
    if isinstance(content, str):
        return _Turn(_ROLES[role], content, (None,) * content.count(MARK), kind=kind)
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise ValueError(f"conversations {_MUST}; a turn holds {type(content).__name__}")
    texts, images = [], []
    for part in content:
        image = _image(part)
        texts.append(without(MARK, str(part.get("text") or "")) if image is None else MARK)
        images += [] if image is None else image
    if images and _ROLES[role] != "user":
        raise ValueError(f"a turn of {role} holds an image: only questions may")
    return _Turn(_ROLES[role], "".join(texts), tuple(images), listed=True, kind=kind)


def _image(part: Mapping[str, Any]) -> list[Any] | None:
    """Return a content part's image, [None] for the row's next one; None for a text.

    Raises:
        ValueError: it is neither an image nor a text.
    """
    kind = part.get("type")
    if kind in ("text", "input_text") or (kind is None and part.get("text") is not None):
        return None
    if kind not in ("image", "image_url", "input_image"):
        raise ValueError(f"a part of a turn is {shortened(repr(kind), 60)}: it must be a text or an image")
    found = next((part[name] for name in _IMAGES if part.get(name) is not None), None)
    return [found.get("url", found) if isinstance(found, Mapping) else found]


def _listed(conversation: Any) -> Any:
    """Return the turns as a list; older `datasets` give a list of objects as an object of lists."""
    if not isinstance(conversation, Mapping):
        return conversation
    keys, columns = list(conversation), list(conversation.values())
    if not columns or not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
