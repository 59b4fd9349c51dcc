"""LLaVA's conversations: [{"from": "human", "value": question}, {"from": "gpt", "value": answer}, ...]."""

from collections.abc import Iterator
from typing import Any


def turns_of(conversation: Any) -> Iterator[tuple[str, str]]:
    """Yield each question of a conversation with its answer; the picture's mark is no part of a question.

    Raises:
        ValueError: it is no conversation; the message says how.
    """
    turns = _listed(conversation)
    if not isinstance(turns, list) or len(turns) < 2 or not all(_is_turn(turn) for turn in turns):
        raise ValueError(
            'conversations must be a list of {"from": "human" | "gpt", "value": text}, a question and its answer'
        )
    for asked, answered in zip(turns[::2], turns[1::2], strict=False):
        if (asked["from"], answered["from"]) != ("human", "gpt") or not answered["value"].strip():
            raise ValueError("turns must be human, gpt, human, gpt ... and no answer may be empty")
        yield asked["value"].replace("<image>", "").strip(), answered["value"].strip()


def _listed(conversation: Any) -> Any:
    """Return the turns as a list; `datasets` used to give a sequence of objects as an object of lists."""
    if not isinstance(conversation, dict):
        return conversation
    speakers, texts = conversation.get("from"), conversation.get("value")
    if not isinstance(speakers, list) or not isinstance(texts, list):
        return None
    return [{"from": one, "value": text} for one, text in zip(speakers, texts, strict=True)]


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)
