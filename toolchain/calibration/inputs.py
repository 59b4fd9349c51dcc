"""Calibration samples as the model takes them."""

from collections.abc import Sequence

from torch import Tensor

from vlmc.runtime.errors import InputError
from vlmc.toolchain.calibration.tokens import Tokens
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.models.streaming.weights import StreamedModel

Inputs = dict[str, Tensor]
"""One sample: the model's tensors by the names of its arguments."""


def encode(
    samples: Sequence[Sample], encoder: Encoder, model: StreamedModel, group: ProcessGroup, policy: str, *, labels: bool
) -> tuple[list[Inputs], Tokens | None]:
    """Return this process's share of the samples, and which of their tokens count by that policy.

    With `labels` the samples hold their answers, so that the model returns a loss.

    Raises:
        InputError: there are fewer samples than processes, or the policy does not suit a sample.
    """
    if len(samples) < group.size:
        raise InputError(f"{len(samples)} calibration samples cannot be shared by {group.size} processes")
    own = group.share(samples)
    inputs = [encoder.answered(sample) if labels else encoder.inputs(sample) for sample in own]
    visual = [encoder.family.visual_tokens(model.module, one)[0] for one in inputs]
    return inputs, Tokens.choose(policy, visual, [sample.id for sample in own])


def on_device(inputs: Inputs, model: StreamedModel) -> Inputs:
    """Return a sample on the model's device, floats in the type that the model computes in."""
    return {
        name: tensor.to(model.device, model.precision if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
