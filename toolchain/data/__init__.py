"""Data sets: where questions, images and answers come from. `load` opens all of them; docs/data.md has the forms."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.data.forms.places import is_hub_id, open_rows
from vlmc.toolchain.data.forms.rows import Rows
from vlmc.toolchain.data.mixing import Mixture, epoch_counts, share
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.samples import RowSamples
from vlmc.toolchain.data.screening import Limit, Screened, readable
from vlmc.toolchain.data.sources import Source, parse_sources
from vlmc.toolchain.settings import DataSettings

__all__ = ["Sample", "load"]

_log = logging.getLogger(__name__)


def load(
    data: DataSettings | str, split: str, count: int | None = None, *, check: bool = False, seed: int = 0
) -> Sequence[Sample]:
    """Open the data of some settings, or of a bare `--data` text; samples are made when they are asked for.

    Args:
        data: where it comes from and how it is read.
        split: the split that is taken where the settings name none.
        count: take so many samples, the first ones; none opens all.
        check: open every image now and leave the samples with bad ones out; else each is opened when its sample is first
            asked for, and the next good sample stands in for one with a bad image.
        seed: draws from a stream; nothing else is drawn.

    Raises:
        InputError: there is no such data set, it is broken, holds fewer than `count` samples, or too many bad images.
        EnvironmentLacks: a hub id, and the hub cannot be reached.
    """
    settings = DataSettings(data=data) if isinstance(data, str) else data
    sources, limit = parse_sources(settings), Limit(settings.max_bad)
    opener = _Opener(split, limit, check, seed, settings.stream)
    if len(sources) == 1:
        return opener.open(sources[0], count)
    weights = [source.weight for source in sources if source.weight is not None]
    return _mix(opener, sources, weights) if count is None else _mix_some(opener, sources, weights, count)


@dataclass(frozen=True)
class _Opener:
    """Opens sources, all in the same way."""

    split: str
    limit: Limit
    check: bool
    seed: int
    stream: bool
    tell: bool = True  # say what is left out

    def open(self, source: Source, count: int | None) -> Sequence[Sample]:
        """Open a source, as far as the first `count` samples that are good."""
        named = builtin.data_sets().get(source.name)
        if named is not None:
            return named.samples(source.split or self.split, count)
        spare = self.limit.of(count) if count is not None and self.check else 0
        most = None if count is None else count + spare
        rows = self._rows(source, most)
        found = RowSamples(rows, source, most) if len(rows) else None
        if not found:
            raise InputError(f"{source.name} holds no question")
        if found.unanswered and self.tell:
            _log.warning(_unanswered(found))
        if self.check:
            return readable(found, count, source.name, self.limit)
        return Screened(_first(found, count, source.name), source.name, self.limit)

    def _rows(self, source: Source, limit: int | None) -> Rows:
        if not self.stream:
            return open_rows(source, self.split, limit)
        if not is_hub_id(source.name):
            raise InputError(f"{source.name} is no hub id: --stream is for data sets of the hub, files are never read whole")
        if limit is None:
            raise InputError(
                f"--stream takes so many samples of {source.name}: add --samples or --count, in a mixture weights"
            )
        from vlmc.toolchain.data.forms.hub import stream_hub

        return stream_hub(source, source.split or self.split, limit, self.seed)


def _mix(opener: _Opener, sources: Sequence[Source], weights: Sequence[float]) -> Sequence[Sample]:
    """Return an epoch of a mixture; without weights it has every sample once."""
    parts = [opener.open(source, None) for source in sources]
    lengths = [len(part) for part in parts]
    return Mixture(parts, epoch_counts(lengths, weights) if weights else lengths)


def _mix_some(opener: _Opener, sources: Sequence[Source], weights: Sequence[float], count: int) -> Sequence[Sample]:
    """Return the first samples of a mixture; without weights the sources' lengths are."""
    uncounted = replace(opener, check=False, tell=False)
    shares = share(count, weights or [len(uncounted.open(source, None)) for source in sources])
    taken = [(source, number) for source, number in zip(sources, shares, strict=True) if number]
    return Mixture([opener.open(source, number) for source, number in taken], [number for _, number in taken])


def _unanswered(samples: RowSamples) -> str:
    place, count = samples.rows.place(samples.unanswered[0]), len(samples.unanswered)
    some = "1 last question" if count == 1 else f"{count} last questions"
    return f"{samples.source.name}: left out {some} without an answer, the first in {place.row} of {place.source}"


def _first(samples: Sequence[Sample], count: int | None, name: str) -> Sequence[Sample]:
    if count is not None and len(samples) < count:
        raise InputError(f"{name} holds {len(samples)} samples, {count} were asked for")
    return samples[:count]
