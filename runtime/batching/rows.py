"""Row: a question in a batcher, from the queue to its end."""

from dataclasses import dataclass
from typing import final

from vlmc.runtime.asking import Asked
from vlmc.runtime.batching.pending import Pending
from vlmc.runtime.errors import CheckFailed, VlmcError, one_line
from vlmc.runtime.reply import Reply
from vlmc.runtime.sessions import Array


@final
@dataclass(frozen=True, eq=False)
class Row:
    """A question: its arrays, its answer so far, and what was promised to who asked."""

    pending: Pending
    asked: Asked
    reply: Reply

    def take(self, logits_V: Array, likeliest: int) -> None:
        """Choose the next token from its logits (V), and hand on what it adds to the text, or the whole answer.

        `likeliest` is the token of the greatest logit: a batcher looks for those of all rows at once.
        """
        try:
            self.pending.add(self.reply.take(logits_V, likeliest))
            if self.reply.finish is not None:
                self.pending.end(self.reply.answer())
        except Exception as error:  # of this row alone, such as logits that are not finite
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.pending.end(told(error))


def told(error: Exception) -> VlmcError:
    """Return an error as who asked is told of it; one that vlmc did not raise, as a line about it."""
    if isinstance(error, VlmcError):
        return error
    return CheckFailed(f"the question cannot be answered: {one_line(error)}")
