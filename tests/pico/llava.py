"""LLaVA 1.5: the vision tower is read at its last but one layer, so the last one's weights never run."""

from torch import nn
from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from tests.pico.base import IMAGE, MAX_POSITIONS, PATCH, SIDE, SIZES, TEXT, TURN, WIDTH, Pico, tokenizer

VISION = SIZES | {
    "model_type": "clip_vision_model",
    "num_hidden_layers": 3,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": WIDTH,
}
TEMPLATE = "USER: " + TURN.replace("PICTURE", "<image>\n").replace("REPLY", "ASSISTANT:")


def _model() -> nn.Module:
    config = LlavaConfig(
        vision_config=VISION,
        text_config=TEXT | {"model_type": "llama", "max_position_embeddings": MAX_POSITIONS},
        image_token_id=IMAGE,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    model: nn.Module = LlavaForConditionalGeneration(config)
    return model


def _processor() -> LlavaProcessor:
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        images,
        tokenizer(extra_special_tokens={"image_token": "<image>"}),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


PICO = Pico(_model, _processor)
