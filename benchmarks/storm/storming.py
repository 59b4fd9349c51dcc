"""Many clients at once, for a while, and what came of all that they did."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from storm.clients import CLIENTS, Target, asked, post
from storm.exchange import Came


@dataclass
class Tally:
    """What came of requests: how many of each kind and status, seconds of those that were answered, what was amiss."""

    statuses: Counter[tuple[str, int | str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    unclear: Counter[tuple[str, int | str]] = field(default_factory=Counter)
    wrong: int = 0

    def add(self, kind: str, came: Came, right: str | None) -> None:
        """Count a request; `right` is what its answer has to be, where that is known."""
        self.statuses[kind, came.status] += 1
        if came.status == 200:
            self.seconds.setdefault(kind, []).append(came.seconds)
            self.wrong += right is not None and came.text is not None and came.text != right
        if not came.clear:
            self.unclear[kind, came.status] += 1

    def of(self, kind: str) -> dict[int | str, int]:
        """Return how often each status came for a kind of client."""
        return {status: count for (one, status), count in sorted(self.statuses.items(), key=str) if one == kind}


def storm(target: Target, clients: int, seconds: float, seed: int, tally: Tally) -> None:
    """Let so many clients ask for so long, each one request after the other; wait until all have come to an end."""
    asyncio.run(_storm(target, clients, time.monotonic() + seconds, seed, tally))


async def _storm(target: Target, clients: int, end: float, seed: int, tally: Tally) -> None:
    await asyncio.gather(*(_client(target, Random(f"{seed}:{number}"), end, tally) for number in range(clients)))


async def _client(target: Target, random: Random, end: float, tally: Tally) -> None:
    kinds, weights = list(CLIENTS), [weight for _, weight in CLIENTS.values()]
    while time.monotonic() < end:
        kind = random.choices(kinds, weights)[0]
        found = await CLIENTS[kind][0](target, random)
        came, right = (found[0], target.right[found[1]]) if isinstance(found, tuple) else (found, None)
        tally.add(kind, came, right)
        if came.status != 200:
            await asyncio.sleep(0.05)


def learn(target: Target, pictures: int) -> dict[int, str]:
    """Return the answers about pictures, asked one at a time."""
    return asyncio.run(_learn(target, pictures))


async def _learn(target: Target, pictures: int) -> dict[int, str]:
    found = {}
    for seed in range(pictures):
        came = await post(target, json.dumps(asked(target, seed)).encode())
        if came.text is None:
            raise SystemExit(f"the server does not answer: {came}")
        found[seed] = came.text
    return found
