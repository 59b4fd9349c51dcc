"""The rows of the demo's JSONL as lmms-eval asks for them."""

from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path("demo-data")


def pictures(row: dict[str, Any]) -> list[Image.Image]:
    """Return the row's picture."""
    return [Image.open(FOLDER / row["image"]).convert("RGB")]


def question(row: dict[str, Any], options: dict[str, Any] | None = None) -> str:
    """Return the question without the mark of its picture."""
    return str(row["conversations"][0]["value"]).replace("<image>", "").strip()


def messages(row: dict[str, Any], options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the question as a chat, for models that are asked so."""
    parts = [{"type": "image", "url": pictures(row)[0]}, {"type": "text", "text": question(row)}]
    return [{"role": "user", "content": parts}]


def answer(row: dict[str, Any]) -> str:
    """Return the expected answer."""
    return str(row["conversations"][1]["value"])


def right(row: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Score by exact match, but for case, white space and a final full stop."""
    return {"exact_match": float(_folded(answers[0]) == _folded(answer(row)))}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
