"""Plain English that every installation has: some to keep the language by, some to measure it on.

Shapes: N windows, T tokens.
"""

import math
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 256
"""Tokens of a window of text."""


def for_training() -> str:
    """Return Python's own language reference."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def for_measuring() -> str:
    """Return scikit-learn's descriptions of its data sets."""
    found = files("sklearn.datasets.descr").iterdir()
    return "\n\n".join(
        path.read_text("utf-8") for path in sorted(found, key=lambda path: path.name) if path.name.endswith(".rst")
    )


def windows(tokenizer: Any, text: str) -> Tensor:
    """Return a text's tokens in windows, N x T; what does not fill one is left out."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)


def logits(model: Any, ids_NT: Tensor) -> Tensor:
    """Return what the language model of `smol` says after each token, N x T x vocabulary."""
    states = model.model.text_model(input_ids=ids_NT, use_cache=False).last_hidden_state
    told: Tensor = model.lm_head(states)
    return told


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any) -> float:
    """Return the perplexity of the text for measuring, each window by itself."""
    losses = [
        functional.cross_entropy(logits(model, ids_T[None])[0, :-1], ids_T[1:])
        for ids_T in windows(tokenizer, for_measuring())
    ]
    return math.exp(torch.stack(losses).mean().item())
