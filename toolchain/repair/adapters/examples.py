"""What a merge is proven on: samples of the data that the adapter was trained on, or probes."""

from collections.abc import Iterable, Sequence

from vlmc.runtime.artifact import Manifest
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain import data
from vlmc.toolchain.data.encode import Encoded, Encoder
from vlmc.toolchain.data.forms.places import is_hub_id
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.data.sources import parse_sources
from vlmc.toolchain.repair.feeding.batches import Batch, find_answers
from vlmc.toolchain.settings import DataSettings

COUNT = 4
ROOM = 8 << 20  # bytes of pictures and tokens that a batch may have: what a model makes of them grows with it


def trained_on(manifest: Manifest) -> DataSettings | None:
    """Return where the samples of an artifact's repair came from, as its history tells."""
    told = next((step.config for step in reversed(manifest.history) if step.stage == "repair"), {})
    if not isinstance(told.get("data"), str):
        return None
    return DataSettings.model_validate({name: told[name] for name in DataSettings.model_fields if name in told})


def encode_examples(sources: Iterable[DataSettings], encoder: Encoder) -> list[Encoded]:
    """Return the first few samples of the first source that is on this disk, as far as the model takes them; else none."""
    for source in sources:
        try:
            if any(is_hub_id(one.name) for one in parse_sources(source)):
                continue  # what is not on this disk is not fetched for a proof
            return encode(data.load(source, "train", COUNT), encoder)
        except (InputError, EnvironmentLacks):
            continue  # moved, or gone, since the adapter was trained
    return []


def encode(samples: Sequence[Sample], encoder: Encoder) -> list[Encoded]:
    """Return questions and answers as the model takes them, but for those that are too long for it."""
    encoded, most = [encoder.answered(samples[place]) for place in range(len(samples))], encoder.max_positions
    return [one for one in encoded if most is None or one["input_ids"].shape[1] <= most]


def in_batches(encoded: Sequence[Encoded], encoder: Encoder) -> list[Batch]:
    """Stack samples into as few batches as `ROOM` allows: for each of them a model's weights are read from the disk."""
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
