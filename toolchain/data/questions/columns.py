"""Which column is the image, the question and the answer: named by the user, or found by the usual names."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from vlmc.runtime.errors import InputError
from vlmc.runtime.json_text import parse_json
from vlmc.toolchain.data.forms.rows import Rows
from vlmc.toolchain.data.questions.conversations import Asked, placed, questions
from vlmc.toolchain.data.sample import MARK

USUAL: dict[str, tuple[str, ...]] = {
    "image": ("image", "img", "picture", "images", "file_name", "image_file_name", "image_path", "image_file", "path"),
    "conversations": ("conversations", "messages"),
    "question": ("question", "query", "instruction", "prompt"),
    "answer": ("answer", "multiple_choice_answer", "answers", "response", "label", "cls"),
    "references": ("answers", "references"),
    "id": ("id", "question_id", "__key__"),
    "kind": ("kind", "type"),
}
"""The usual names of each role's column, in order of preference."""
CAPTIONS = ("caption", "captions", "text", "txt", "description", "sentence", "sentences")
"""The usual names of an answer without a question."""
ROLES = tuple(USUAL)
NO_IMAGE = "none"
"""What is said in place of the image's column where rows have no image."""
_INNER = ("answer", "text")  # keys of an answer that is an object


@dataclass(frozen=True)
class Columns:
    """The column of each role, or None.

    A row has conversations, or a question and an answer, or only an answer: a caption, or where there are no images plain
    text. Conversations may name their images themselves; otherwise there is a column for them, unless it is said that there
    are none.
    """

    image: str | None
    conversations: str | None
    question: str | None
    answer: str | None
    references: str | None
    id: str | None
    kind: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        return tuple(name for name in astuple(self) if name is not None)

    def asked(self, row: Mapping[str, Any], prompt: str) -> list[Asked]:
        """Return a row's questions with their answers and images; `prompt` is the question of a caption.

        Raises:
            ValueError: the row is invalid; the message says why.
        """
        images = _images(row.get(self.image)) if self.image is not None else []
        if self.conversations is not None:
            return questions(row.get(self.conversations), images)
        assert self.answer is not None
        answer = one_text(row.get(self.answer))
        if self.question is None and self.image is None and answer:
            return [Asked("", answer)]
        question = prompt if self.question is None else placed(one_text(row.get(self.question)), len(images))
        if not question.replace(MARK, "").strip() or not answer:
            raise ValueError(f"{self.answer if question else self.question} is empty")
        references = texts(row.get(self.references or self.answer))
        return [Asked(question, answer, tuple(images), references=references if len(references) > 1 else ())]


def choose(rows: Rows, given: Mapping[str, str], name: str) -> Columns:
    """Find the columns of a data set.

    Raises:
        InputError: a named column does not exist, or one that is not named is not found; the message lists the columns.
    """
    there, without = ", ".join(rows.columns), given.get("image") == NO_IMAGE and NO_IMAGE not in rows.columns
    given = {role: column for role, column in given.items() if not (without and role == "image")}
    for role, column in given.items():
        if column not in rows.columns:
            raise InputError(f"{name} has no column {column!r} (--columns {role}={column}): its columns are {there}")
    found = {role: given.get(role) or _first(rows, names) for role, names in USUAL.items()}
    caption = _first(rows, CAPTIONS)
    if "question" in given:
        found["answer"] = found["answer"] or caption
    elif "answer" not in given and not (found["question"] and found["answer"]):
        found |= {"question": None, "answer": caption}
    told = "conversations" in given or (found["conversations"] or "").casefold() != "messages"
    if {"question", "answer"} & given.keys() or (found["question"] and found["answer"] and not told):
        found["conversations"] = given.get("conversations")
    without = without or rows.plain
    if without:
        found["image"] = None
    if not found["conversations"] and (found["answer"] is None or (found["image"] is None and not without)):
        raise InputError(
            f"{name}: cannot tell which of the columns {there} are the image, the question and the answer: "
            "name them, as in --columns image=img,question=q,answer=a (image=none: there are no images)"
        )
    return Columns(**found)


def _first(rows: Rows, names: tuple[str, ...]) -> str | None:
    there = {column.casefold(): column for column in rows.columns}
    return next((there[name] for name in names if name in there), None)


def _images(value: Any) -> list[Any]:
    """Return the images of a row; a text that is a JSON list, as in CSV, holds several."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            return [value]
    return value if isinstance(value, list) else [] if value is None else [value]


def one_text(value: Any) -> str:
    """Return a value as text; of several answers the most frequent, or the first of those."""
    if isinstance(value, dict):
        return one_text(next((value[name] for name in _INNER if name in value), None))
    if isinstance(value, list):
        found = texts(value)
        return Counter(found).most_common(1)[0][0] if found else ""
    return "" if value is None else str(value).strip()


def texts(value: Any) -> tuple[str, ...]:
    """Return every answer of a value: the items of a list, else the value itself; empty ones are left out."""
    if isinstance(value, dict):
        return texts(next((value[name] for name in _INNER if name in value), None))
    items = value if isinstance(value, list) else [value]
    return tuple(text for item in items if (text := one_text(item)))
