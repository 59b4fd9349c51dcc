"""Data sets: `load` opens what `--data` names as a sequence of samples; docs/data.md lists the forms.

`sources` parses `--data`, `forms` reads files and the hub as rows, `questions` turns rows into samples, `sequences` mixes
samples and leaves out unreadable images, and `encode` turns samples into tensors.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin
from vlmc.toolchain.data.forms.places import is_hub_id, open_rows
from vlmc.toolchain.data.forms.rows import Rows
from vlmc.toolchain.data.questions.samples import RowSamples
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sequences.mixing import Mixture, epoch_counts, share
from vlmc.toolchain.data.sequences.screening import Limit, Screened, readable
from vlmc.toolchain.data.sources import Source, parse_sources
from vlmc.toolchain.settings import DataSettings

__all__ = ["Sample", "load"]

_log = logging.getLogger(__name__)


def load(
    data: DataSettings | str, split: str, count: int | None = None, *, check: bool = False, seed: int = 0
) -> Sequence[Sample]:
    """Open a data set, given as settings or as the text of `--data`; samples are made when they are accessed.

    Args:
        data: where it comes from and how it is read.
        split: the split to read where the settings name none.
        count: the number of samples to take, from the start; None takes all.
        check: open every image now and leave out samples with unreadable ones; otherwise an image is opened when its sample
            is first accessed, and the next good sample replaces one with an unreadable image.
        seed: of the shuffle of a stream; nothing else is random.

    Raises:
        InputError: there is no such data set, it is damaged, or it has fewer than `count` samples or too many unreadable
            images.
        EnvironmentLacks: the hub cannot be reached.
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
    """How all sources of one `load` are opened."""

    split: str
    limit: Limit
    check: bool
    seed: int
    stream: bool
    log: bool = True  # what is left out

    def open(self, source: Source, count: int | None) -> Sequence[Sample]:
        """Open a source's first `count` good samples."""
        named = builtin.data_sets().get(source.name)
        if named is not None:
            return named.samples(source.split or self.split, count)
        spare = self.limit.of(count) if count is not None and self.check else 0
        most = None if count is None else count + spare
        rows = self._rows(source, most)
        found = RowSamples(rows, source, most) if len(rows) else None
        if not found:
            raise InputError(f"{source.name} has no questions")
        if found.unanswered and self.log:
            _log.warning(_unanswered(found))
        if self.check:
            return readable(found, count, source.name, self.limit)
        return Screened(_first(found, count, source.name), source.name, self.limit)

    def _rows(self, source: Source, limit: int | None) -> Rows:
        if not self.stream:
            return open_rows(source, self.split, limit)
        if not is_hub_id(source.name):
            raise InputError(
                f"{source.name} is not a hub id: --stream is for data sets of the hub; files are read lazily anyway"
            )
        if limit is None:
            raise InputError(
                f"--stream needs the number of samples of {source.name}: add --samples or --count, and weights in a mixture"
            )
        from vlmc.toolchain.data.forms.hub import stream_hub

        return stream_hub(source, source.split or self.split, limit, self.seed)


def _mix(opener: _Opener, sources: Sequence[Source], weights: Sequence[float]) -> Sequence[Sample]:
    """Return one epoch of a mixture; without weights, every sample once."""
    parts = [opener.open(source, None) for source in sources]
    lengths = [len(part) for part in parts]
    return Mixture(parts, epoch_counts(lengths, weights) if weights else lengths)


def _mix_some(opener: _Opener, sources: Sequence[Source], weights: Sequence[float], count: int) -> Sequence[Sample]:
    """Return the first samples of a mixture, in proportion to the weights or else to the sources' lengths."""
    uncounted = replace(opener, check=False, log=False)
    shares = share(count, weights or [len(uncounted.open(source, None)) for source in sources])
    taken = [(source, number) for source, number in zip(sources, shares, strict=True) if number]
    return Mixture([opener.open(source, number) for source, number in taken], [number for _, number in taken])


def _unanswered(samples: RowSamples) -> str:
    place, count = samples.rows.place(samples.unanswered[0]), len(samples.unanswered)
    some = "1 last question" if count == 1 else f"{count} last questions"
    return f"{samples.source.name}: left out {some} without an answer, the first in {place.row} of {place.source}"


def _first(samples: Sequence[Sample], count: int | None, name: str) -> Sequence[Sample]:
    if count is not None and len(samples) < count:
        raise InputError(f"{name} has only {len(samples)} of the {count} samples that are needed")
    return samples[:count]
