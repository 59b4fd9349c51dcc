"""One question answered again and again by every contestant in turns, and what each phase took."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Self, final

import numpy as np

from vlmc.runtime.model import Model
from vlmc.runtime.sessions import Array, Bound, Session
from vlmc.toolchain.data.sample import Sample

DECODE = "decode"
PHASES = ("vision", "prefill", DECODE, "end to end")
"""Seconds of the vision encoder, of the decoder over the prompt, of one token after it, and of the whole answer."""
ANSWERS, SECONDS = 3, 0.5
"""How many answers of an opened model count at least, and for how long it answers at least."""


class Timed(Session):
    """A session that notes how long each run took, and what the last one was given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seconds: list[float] = []
        self.feeds: Mapping[str, Array] = {}

    @property
    def inputs(self) -> Mapping[str, tuple[np.dtype[Any], tuple[int | str, ...]]]:
        return self._session.inputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self.timed(self._session, feeds)

    def bound(self, places: Mapping[str, Array]) -> Bound:
        return TimedBound(self, self._session.bound(places))

    def timed(self, what: Session | Bound, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run it, and note how long that took."""
        self.feeds, began = feeds, perf_counter()
        found = what.run(feeds)
        self.seconds.append(perf_counter() - began)
        return found

    def close(self) -> None:
        self._session.close()


@final
class TimedBound(Bound):
    """What a timed session bound, its runs noted there."""

    def __init__(self, session: Timed, bound: Bound) -> None:
        super().__init__(session)
        self._noting, self._bound = session, bound

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._noting.timed(self._bound, feeds)


@dataclass(frozen=True)
class Opened:
    """A model whose graphs are timed: its sessions for vision, embedding and decoder."""

    model: Model
    vision: Timed
    embedding: Timed
    decoder: Timed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def answer(self, sample: Sample, tokens: int) -> dict[str, float]:
        """Answer with so many tokens; return the seconds of each phase."""
        for session in (self.vision, self.embedding, self.decoder):
            session.seconds.clear()
        began = perf_counter()
        found = self.model.generate(sample.load_images(), sample.question, max_new_tokens=tokens)
        total, steps = perf_counter() - began, len(found.tokens) - 1
        decode = sum(self.decoder.seconds[1:]) + sum(self.embedding.seconds[1:])
        return dict(zip(PHASES, (sum(self.vision.seconds), self.decoder.seconds[0], decode / steps, total), strict=True))


@dataclass(frozen=True)
class Contestant:
    """What opens a model, and the bytes of its weights."""

    opened: Callable[[], Opened]
    nbytes: int

    def answers(self, sample: Sample, tokens: int) -> dict[str, float]:
        """Open the model, let it answer, and close it; return the median seconds of each phase, without a first answer."""
        with self.opened() as model:
            model.answer(sample, tokens)
            found: list[dict[str, float]] = []
            began = perf_counter()
            while len(found) < ANSWERS or perf_counter() - began < SECONDS:
                found.append(model.answer(sample, tokens))
        return {phase: median(one[phase] for one in found) for phase in PHASES}


def in_turns(contestants: Mapping[str, Contestant], sample: Sample, tokens: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the phases' seconds by contestant for each round; every round begins with another one.

    All are opened anew in each round, one at a time: a model that was opened once may be some percent slower than its twin
    in all of its answers.
    """
    names = list(contestants)
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        taken = {name: contestants[name].answers(sample, tokens) for name in order}
        yield {name: taken[name] for name in names}
