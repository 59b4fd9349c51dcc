"""What a merge is proven on: samples of the data that the adapter was trained on, or probes of noise."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vlmc.runtime.artifact import Artifact, Manifest
from vlmc.runtime.artifact.folder import MANIFEST
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoded, Encoder, TooLong
from vlmc.toolchain.data.forms.places import is_hub_id
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sources import parse_sources
from vlmc.toolchain.deploy.probes import probes
from vlmc.toolchain.repair.feeding import Batch, find_answers
from vlmc.toolchain.settings import DataSettings

COUNT = 4
ROOM = 8 << 20  # bytes of images and tokens in a batch: activations grow with them


class Examples(NamedTuple):
    """Encoded samples, and whether they are noise."""

    encoded: Sequence[Encoded]
    noise: bool


def choose_examples(
    encoder: Encoder, samples: Sequence[Sample] | None, named: DataSettings | None, adapters: Sequence[Path]
) -> Examples:
    """Return these samples; else some of the named data, or of the data that the adapters were trained on; else noise."""
    if samples is not None and (found := encode(samples, encoder)):
        return Examples(found, noise=False)
    artifacts = [Artifact.open(folder.parent) for folder in adapters if (folder.parent / MANIFEST).is_file()]
    sources = [named, *(trained_on(artifact.manifest) for artifact in artifacts)]
    if found := encode_examples([source for source in sources if source is not None], encoder):
        return Examples(found, noise=False)
    return Examples([encoder.answered(sample) for sample in probes(COUNT)], noise=True)


def trained_on(manifest: Manifest) -> DataSettings | None:
    """Return where the samples of an artifact's repair came from, by its history."""
    told = next((step.config for step in reversed(manifest.history) if step.stage == "repair"), {})
    if not isinstance(told.get("data"), str):
        return None
    return DataSettings.model_validate({name: told[name] for name in DataSettings.model_fields if name in told})


def encode_examples(sources: Iterable[DataSettings], encoder: Encoder) -> list[Encoded]:
    """Return the first samples of the first source that is on this disk, without those too long for the model; else none."""
    for source in sources:
        try:
            if any(is_hub_id(one.name) for one in parse_sources(source)):
                continue  # nothing is downloaded for a proof
            return encode(data.load(source, "train", COUNT), encoder)
        except (InputError, EnvironmentLacks):
            continue  # moved or deleted since the adapter was trained
    return []


def encode(samples: Sequence[Sample], encoder: Encoder) -> list[Encoded]:
    """Return questions and answers as the model takes them, without those that are too long for it."""
    found = []
    for place in range(len(samples)):
        with suppress(TooLong):
            found.append(encoder.answered(samples[place]))
    return found


def in_batches(encoded: Sequence[Encoded], encoder: Encoder) -> list[Batch]:
    """Stack samples into as few batches as `ROOM` allows: a model's weights are read from the disk once for each batch."""
    batches: list[list[Encoded]] = []
    room = 0
    for one in encoded:
        size = sum(tensor.nbytes for tensor in one.values())
        if size > room:
            batches.append([])
            room = ROOM
        batches[-1].append(one)
        room -= size
    return [find_answers(encoder.collate(some), apart=encoder.family.encoder_decoder) for some in batches]
