"""From a model, its processor and its family's wiring to `deployment.json`."""

from typing import Any

from torch import nn

from vlmc.runtime.deployment import CacheLayout, Deployment, FixedProcessor, Graphs, ImagePipeline, OwnProcessor, Prompt
from vlmc.runtime.errors import InputError
from vlmc.toolchain.deploy.probes import image
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Processor
from vlmc.toolchain.families.prompting import QUESTION

_IMAGES = "{images}"


def describe(
    family: Family, wiring: Wiring, model: nn.Module, processor: Processor, cache: CacheLayout = "concatenated"
) -> Deployment:
    """Return how a model is fed.

    Raises:
        InputError: the model has no usable prompt, or no token that ends an answer.
    """
    config: Any = model.config
    prompt, several = _prompt(family, wiring, processor)
    return Deployment(
        family=family.name,
        processor=_processor(family, wiring, model, processor),
        vision=wiring.layout,
        prompt=prompt,
        image_token_id=config.image_token_id,
        max_images=wiring.max_images if several else 1,
        graphs=Graphs(encoder="encoder_model") if wiring.encoder_decoder else Graphs(),
        decoder="encoder-decoder" if wiring.encoder_decoder else "causal",
        start_id=config.get_text_config().decoder_start_token_id if wiring.encoder_decoder else None,
        positions=wiring.positions,
        first_position=wiring.first_position,
        prefix_mask=wiring.prefix_mask,
        deepstack=wiring.deepstack,
        cache=cache if _can_be_in_place(wiring, config) else "concatenated",
        stop_ids=family.end_ids(model, processor),
        max_positions=family.max_positions(model),
    )


def _can_be_in_place(wiring: Wiring, config: Any) -> bool:
    """Whether the decoder is one of its own, whose attention scores are not capped."""
    return not wiring.encoder_decoder and getattr(config.get_text_config(), "attn_logit_softcapping", None) is None


def image_pipeline(images: Any) -> ImagePipeline | None:
    """Read the steps of an image processor; None: the numpy pipeline lacks one of them."""
    settings = images.to_dict()
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    resize = _resize(size)
    if settings.get("do_pad") or (settings.get("do_resize") and resize is None):
        return None
    return ImagePipeline(
        resize=resize if settings.get("do_resize") else None,
        resample=int(settings.get("resample", 3)),
        crop=(crop["height"], crop["width"]) if settings.get("do_center_crop") else None,
        rescale=settings.get("rescale_factor") if settings.get("do_rescale") else None,
        mean=tuple(settings["image_mean"]) if settings.get("do_normalize") else None,
        std=tuple(settings["image_std"]) if settings.get("do_normalize") else None,
    )


def _processor(family: Family, wiring: Wiring, model: nn.Module, processor: Processor) -> FixedProcessor | OwnProcessor:
    pipeline = image_pipeline(processor.image_processor) if wiring.constant else None
    if pipeline is None:
        return family.own_processor
    return FixedProcessor(image=pipeline, image_tokens=_count_tokens(family, model, processor))


def _count_tokens(family: Family, model: nn.Module, processor: Processor) -> int:
    """Return how many tokens an image takes, counted in the processor's output for one."""
    config: Any = model.config
    text = family.prompt(processor).replace(QUESTION, "what")
    count = int((processor(images=image(0), text=text, return_tensors="np")["input_ids"] == config.image_token_id).sum())
    if count == 0:
        raise InputError(f"the model's processor gives an image no token {config.image_token_id}, which the model expects")
    return count


def _prompt(family: Family, wiring: Wiring, processor: Processor) -> tuple[Prompt, bool]:
    """Return how a question becomes input, and whether it may be about several images."""
    slot, text = family.image_token(processor), family.prompt(processor)
    unit: str | None = slot
    if wiring.place == "front":
        question = _IMAGES + text
    else:
        unit = None if wiring.max_images == 1 else _unit(family, processor, text)
        question = text.replace(unit or slot, _IMAGES, 1)
    form = Prompt(
        slot=slot,
        image=unit or slot,
        question=question,
        place=wiring.place,
        chat_template=processor.chat_template or None,
    )
    return form, unit is not None


def _unit(family: Family, processor: Processor, one: str) -> str | None:
    """Return what each image takes in the prompt; None: the model's template cannot show two."""
    try:
        return _repeated(one, family.image_token(processor), family.prompt(processor, 2))
    except InputError:
        return None


def _repeated(one: str, slot: str, two: str) -> str | None:
    """Return the text around the slot that a second image repeats in the prompt; None: it is not repeated unchanged."""
    size, place = len(two) - len(one), one.index(slot)
    for start in range(max(0, place + len(slot) - size), place + 1):
        piece = one[start : start + size]
        if slot in piece and one[:start] + piece + one[start:] == two:
            return piece
    return None


def _resize(size: dict[str, int]) -> tuple[int, int] | tuple[int] | None:
    if {"height", "width"} <= {name for name, value in size.items() if value}:
        return size["height"], size["width"]
    if size.get("shortest_edge") and not size.get("longest_edge"):
        return (size["shortest_edge"],)
    return None
