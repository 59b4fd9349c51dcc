"""`genai_config.json` and the image processor's configuration, in the form of onnxruntime-genai 0.18.

Its reader is src/config.h of microsoft/onnxruntime-genai; the image processor's is that of onnxruntime-extensions.
"""

from typing import Any

from vlmc.runtime.deployment import Deployment, Patches
from vlmc.runtime.errors import InputError, one_line
from vlmc.toolchain.deploy.causal import Cache
from vlmc.toolchain.deploy.genai.graphs import DECODER, EMBEDDING, VISION
from vlmc.toolchain.deploy.sources import LONGEST

PROCESSOR = "vision_processor.json"
_RESAMPLED = {0: "NEAREST", 1: "LANCZOS", 2: "LINEAR", 3: "CUBIC"}
"""Pillow's filters by their numbers; onnxruntime-extensions has these names."""


def genai_config(kind: str, config: Any, deployment: Deployment, *, tokens: bool) -> dict[str, Any]:
    """Return the configuration of a model that onnxruntime-genai knows as `kind`; `tokens`: its decoder reads them too."""
    text, cache = config.get_text_config(), Cache.of(config.get_text_config())
    context = deployment.max_positions or LONGEST
    inputs = {"inputs_embeds": "inputs_embeds", "attention_mask": "attention_mask", "position_ids": "position_ids"}
    inputs |= {"input_ids": "input_ids"} if tokens else {}
    model: dict[str, Any] = {
        "type": kind,
        "context_length": context,
        "vocab_size": text.vocab_size,
        "bos_token_id": _one(text.bos_token_id, deployment),
        "eos_token_id": list(deployment.stop_ids),
        "pad_token_id": _one(text.pad_token_id, deployment),
        "image_token_id": deployment.image_token_id,
        "vision": _vision(config, deployment),
        "embedding": {
            "filename": f"{EMBEDDING}.onnx",
            "inputs": {"input_ids": "input_ids", "image_features": "image_features"},
            "outputs": {"inputs_embeds": "inputs_embeds"},
        },
        "decoder": {
            "filename": f"{DECODER}.onnx",
            "hidden_size": text.hidden_size,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": cache.heads,
            "num_hidden_layers": cache.layers,
            "head_size": cache.head_size,
            "inputs": inputs | {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
    }
    if deployment.positions == "m-rope":
        model |= {name: getattr(config, name) for name in ("video_token_id", "vision_start_token_id")}
    search = {"do_sample": False, "num_beams": 1, "max_length": context, "past_present_share_buffer": False}
    return {"model": model, "search": search}


def _one(token: int | None, deployment: Deployment) -> int:
    return deployment.stop_ids[0] if token is None else token


def _vision(config: Any, deployment: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = {
        "filename": f"{VISION}.onnx",
        "config_filename": PROCESSOR,
        "inputs": {"pixel_values": "pixel_values"},
        "outputs": {"image_features": "image_features"},
    }
    if isinstance(deployment.vision, Patches):
        found["inputs"] |= {"image_grid_thw": "image_grid_thw"}
        found |= {"spatial_merge_size": deployment.vision.merge, "patch_size": config.vision_config.patch_size}
        found["tokens_per_second"] = float(getattr(config.vision_config, "tokens_per_second", 2))
    return found


def processor_config(images: Any) -> dict[str, Any]:
    """Return the steps of transformers' image processor, as onnxruntime-extensions has them.

    Raises:
        InputError: it lacks a setting, or one makes no sense.
    """
    try:
        return {"processor": {"name": "image_processor", "transforms": _steps(images.to_dict())}}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"the model's image processor has no usable settings: {one_line(repr(error))}") from None


def _steps(settings: dict[str, Any]) -> list[dict[str, Any]]:
    patches = "merge_size" in settings
    normalised = {"mean": list(settings["image_mean"]), "std": list(settings["image_std"])}
    steps = [
        _step("decode_image", "DecodeImage", color_space="RGB"),
        *([_step("convert_to_rgb", "ConvertRGB")] if patches else []),  # it turns the channels round; PatchImage turns back
        _step("resize", "Resize", **(_smart(settings) if patches else _fixed(settings))),
        _step("rescale", "Rescale", rescale_factor=settings["rescale_factor"]),
        _step("normalize", "Normalize", **normalised, **({"qwen2_5_vl": 1} if patches else {})),
    ]
    if patches:
        sizes = {name: settings[name] for name in ("patch_size", "temporal_patch_size", "merge_size")}
        steps.append(_step("patch_image", "PatchImage", **sizes))
    else:
        steps.append(_step("to_channel_first", "Permute3D", dims=[2, 0, 1]))
    return steps


def _step(name: str, kind: str, **attributes: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {"name": name, "type": kind}
    return {"operation": operation | ({"attrs": attributes} if attributes else {})}


def _smart(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a size in whole tokens between two bounds, near the image's own; height and width are what it starts from."""
    size = settings["size"]
    bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    given = {"patch_size": settings["patch_size"], "merge_size": settings["merge_size"], "smart_resize": 1}
    return {"width": 540, "height": 360, "interpolation": _filter(settings), **bounds, **given}


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    size = settings["size"]
    return {"height": size["height"], "width": size["width"], "interpolation": _filter(settings), "keep_aspect_ratio": 0}


def _filter(settings: dict[str, Any]) -> str:
    return _RESAMPLED.get(int(settings.get("resample", 3)), "CUBIC")
