"""Which column is the picture, the question, the answer: named by the user, or guessed from the usual names."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.conversations import turns_of
from vlmc.toolchain.data.rows import Rows

USUAL: dict[str, tuple[str, ...]] = {
    "image": ("image", "img", "picture", "images", "file_name", "image_file_name", "image_path", "image_file", "path"),
    "conversations": ("conversations",),
    "question": ("question", "query", "instruction", "prompt"),
    "answer": ("answer", "multiple_choice_answer", "answers", "response", "label", "cls"),
    "id": ("id", "question_id", "__key__"),
    "kind": ("kind",),
}
"""Names that are taken for each role, the first one there is first."""
CAPTIONS = ("caption", "captions", "text", "txt", "description", "sentence", "sentences")
"""Names that are taken for an answer where there is no question."""
ROLES = tuple(USUAL)
_INNER = ("answer", "text")  # in a list of answers that are objects


@dataclass(frozen=True)
class Columns:
    """The column that plays each role, None where none does.

    There are conversations, or a question and an answer, or an answer alone: a caption.
    """

    image: str
    conversations: str | None
    question: str | None
    answer: str | None
    id: str | None
    kind: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(name for name in astuple(self) if name is not None)

    def turns(self, row: Mapping[str, Any], prompt: str) -> Iterator[tuple[str, str]]:
        """Yield a row's questions with their answers; a caption answers the prompt.

        Raises:
            ValueError: the row is broken; the message says how.
        """
        if self.conversations is not None:
            yield from turns_of(row.get(self.conversations))
            return
        assert self.answer is not None
        question = prompt if self.question is None else one_text(row.get(self.question)).replace("<image>", "").strip()
        answer = one_text(row.get(self.answer))
        if not question or not answer:
            raise ValueError(f"{self.answer if question else self.question} is empty")
        yield question, answer


def choose(rows: Rows, given: Mapping[str, str], name: str) -> Columns:
    """Find the columns of a data set.

    Raises:
        InputError: a named column is not there, or what is not named cannot be guessed; the message lists the columns.
    """
    there = ", ".join(rows.columns)
    for role, column in given.items():
        if column not in rows.columns:
            raise InputError(f"{name} has no column {column!r} (--columns {role}={column}): its columns are {there}")
    found = {role: given.get(role) or _first(rows, names) for role, names in USUAL.items()}
    caption = _first(rows, CAPTIONS)
    if "question" in given:
        found["answer"] = found["answer"] or caption
    elif "answer" not in given and not (found["question"] and found["answer"]):
        found |= {"question": None, "answer": caption}
    if {"question", "answer"} & given.keys():
        found["conversations"] = given.get("conversations")
    if found["image"] is None or not (found["conversations"] or found["answer"]):
        raise InputError(
            f"{name}: cannot tell which columns are the picture, the question and the answer: they are {there}; "
            "name them, as in --columns image=img,question=q,answer=a"
        )
    return Columns(**found)  # type: ignore[arg-type]


def _first(rows: Rows, names: tuple[str, ...]) -> str | None:
    there = {column.casefold(): column for column in rows.columns}
    return next((there[name] for name in names if name in there), None)


def one_text(value: Any) -> str:
    """Return a value as a text; of several answers the most frequent one, of equally frequent ones the first."""
    if isinstance(value, dict):
        return one_text(next((value[name] for name in _INNER if name in value), None))
    if isinstance(value, list):
        texts = [text for item in value if (text := one_text(item))]
        return Counter(texts).most_common(1)[0][0] if texts else ""
    return "" if value is None else str(value).strip()
