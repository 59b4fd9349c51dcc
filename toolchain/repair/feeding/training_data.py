"""The samples that a run trains and validates on: those of the data sets that its options name, or others in their place."""

from collections.abc import Sequence
from functools import cached_property

from vlmc.runtime.errors import InputError
from vlmc.toolchain import builtin, data
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.fingerprint import fingerprint
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.repair.feeding.batches import Batches, SampleCache
from vlmc.toolchain.repair.feeding.holding_out import Parts, hold_out
from vlmc.toolchain.settings import TrainingSettings


class TrainingData:
    """The samples of one run; `samples` and `validation` replace the data sets of the options."""

    def __init__(
        self,
        options: TrainingSettings,
        seed: int,
        progress: Progress,
        samples: Sequence[Sample] | None = None,
        validation: Sequence[Sample] | None = None,
    ) -> None:
        self.options, self.seed, self.progress = options, seed, progress
        self._samples, self._validation = samples, validation

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """All samples given to train on, with those that are held out."""
        if self._samples is not None:
            return self._samples
        return data.load(self.options, "train", self.options.samples, seed=self.seed)

    @cached_property
    def _builtin(self) -> bool:
        """Whether the data has a validation split of its own."""
        return self.options.data in builtin.data_sets()

    @cached_property
    def parts(self) -> Parts:
        """The samples to train on, and those of a user's own data that are held out where no others are named."""
        if self._builtin or self.options.validation or self._validation is not None:
            return Parts(self.samples, ())
        parts = hold_out(self.samples, self.options.hold_out, self.seed)
        self.progress.notice(parts.notice)
        if parts.validation:
            self.progress.notice(
                f"{len(parts.validation)} of {len(self.samples)} samples are held out to validate on (--hold-out)"
            )
        return parts

    @cached_property
    def validated(self) -> Sequence[Sample]:
        """What the run validates on, if anything: what is named or held out, or, where asked for, a built-in split.

        Raises:
            InputError: validation is asked for, and there is nothing to validate on.
        """
        options, asked = self.options, self.options.patience is not None or self.options.validate_every is not None
        if self.parts.validation:
            return self.parts.validation
        named = self._validation is not None or options.validation is not None
        found = self.questions if named or (asked and self._builtin) else ()
        if asked and not found:
            raise InputError(
                f"there is nothing to validate {options.data} on: name a data set with --validation, or a number of "
                "samples with --hold-out"
            )
        return [found[place] for place in range(min(options.validation_count, len(found)))]

    @cached_property
    def questions(self) -> Sequence[Sample]:
        """Questions that are not trained on; none where `samples` are given without `validation`."""
        if self._validation is not None:
            return self._validation
        if self.options.validation is not None:
            return data.load(self.options.validation, "validation")
        if self._builtin:
            return data.load(self.options.data, "validation") if self._samples is None else ()
        return self.parts.validation

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digests of all data that is read, by its use; what is held out is a part of the training data."""
        read = {"training": self.samples, "validation": () if self.parts.validation else self.validated}
        return {use: fingerprint(samples) for use, samples in read.items() if samples}

    def measures(self) -> dict[str, int]:
        """Return how many samples are trained on and held out; nothing where none are held out."""
        held = len(self.parts.validation)
        return {"trained_on": len(self.parts.train), "held_out": held} if held else {}

    def batches(self, encoder: Encoder) -> tuple[Batches, Batches | None]:
        """Return the batches to train on and to validate on.

        Encoded samples are cached only where they are seen again; training and validation share the room for them.
        """
        options, train, validated = self.options, self.parts.train, self.validated
        repeats = options.steps * options.batch > len(train)
        validates_again = bool(validated) and options.steps > options.validation_interval
        room = options.sample_cache * 1_000_000 // max(1, repeats + validates_again)

        def batches(samples: Sequence[Sample], cached: bool) -> Batches:
            return Batches(samples, encoder, options.batch, self.seed, SampleCache(room if cached else 0))

        return batches(train, repeats), batches(validated, validates_again) if validated else None
