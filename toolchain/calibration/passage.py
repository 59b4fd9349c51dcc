"""The calibration samples' way through one tower, block by block.

Each sample first runs up to the tower, where the arguments of the tower's owner are recorded. Then block after block runs on
what the one before gave out; the model's own code between them runs too.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from vlmc.toolchain.calibration.inputs import Inputs, on_device
from vlmc.toolchain.models.streaming.activations import Activations, same
from vlmc.toolchain.models.streaming.stack import Passed, Stack
from vlmc.toolchain.models.streaming.weights import StreamedModel


class Passage:
    """The arguments of some samples, by their numbers, for one tower, and what its last finished block gave out for each.

    `spill` is a folder for them; None keeps them in memory.
    """

    def __init__(
        self, model: StreamedModel, stack: Stack, inputs: Sequence[Inputs], samples: Sequence[int], spill: Path | None
    ) -> None:
        self.model, self.stack, self.inputs, self.samples = model, stack, inputs, samples
        self._arguments = Activations(model.device, spill and spill / "arguments")
        self._outputs = Activations(model.device, spill and spill / "outputs")

    @torch.no_grad()
    def enter(self, earlier: "Passage | None") -> None:
        """Run every sample up to the tower; from the last block of an `earlier` tower on, where that comes to the same."""
        left = self.samples if earlier is None else self._enter_from(earlier)
        if left:
            with self.model.ready(partial(self._record, left[0])):
                for sample in left[1:]:
                    self._record(sample)
        if earlier is not None:
            earlier._outputs.clear()

    def run(self, number: int, sample: int) -> Passed:
        """Take one sample through the block of that number, whose weights must be there."""
        previous = self._outputs.get(sample) if number else None
        with self.stack.at(number) as through:
            return through(self._arguments.get(sample), previous)

    @torch.no_grad()
    def move_on(self, number: int) -> None:
        """Keep what the block of that number gives out for every sample: the next block runs on it."""
        for sample in self.samples:
            self._outputs.put(sample, self.run(number, sample).output)

    def leave(self, number: int) -> "Passage | None":
        """End with the block of that number; return what a later tower can be entered from, None where it cannot."""
        self._arguments.clear()
        if 0 < number == len(self.stack.blocks) - 1:
            return self
        self._outputs.clear()
        return None

    def _enter_from(self, earlier: "Passage") -> Sequence[int]:
        """Run samples from the last block of an earlier tower; return those that must still run as a whole.

        The model may look at more of that tower than its last two blocks. So the first sample runs both ways; and where a
        sample runs through the tower several times, of which one was kept, it and those after it must run as a whole. So
        must those that did not run through it, since they have no image.
        """
        passed = [sample for sample in self.samples if sample in earlier.samples]
        others = [sample for sample in self.samples if sample not in earlier.samples]
        self._record(passed[0])
        whole = self._arguments.get(passed[0])

        def run(sample: int) -> bool:
            stand_in.give(earlier._outputs.get(sample))
            earlier._outputs.drop(sample)
            self._record(sample)
            return stand_in.runs == 1

        with earlier.stack.from_last() as stand_in, self.model.ready(partial(run, passed[0])):
            if stand_in.runs != 1 or not same(whole, self._arguments.get(passed[0])):
                return self.samples
            left = next((passed[place:] for place, sample in enumerate(passed) if place and not run(sample)), [])
            return [*left, *others]

    def _record(self, sample: int) -> None:
        inputs = on_device(self.inputs[sample], self.model)
        self._arguments.put(sample, self.stack.record(partial(self.model.module, **inputs, use_cache=False)))
