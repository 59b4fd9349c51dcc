"""BLIP-2: qkv in one matrix; with OPT, whose embeddings are tied, and with T5, whose decoder looks at its encoder."""

from typing import Any

from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil

from tests.pico.base import HEADS, IDS, IMAGE, INNER, MAX_POSITIONS, PATCH, QUERIES, ROWS, SIDE, TURN, WIDTH, Pico, tokenizer

SHARED = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": 2}
VISION = SHARED | {"intermediate_size": INNER, "image_size": SIDE, "patch_size": PATCH}
QFORMER = SHARED | {"intermediate_size": INNER, "cross_attention_frequency": 1, "encoder_hidden_size": WIDTH}
T5 = IDS | {
    "model_type": "t5",
    "d_model": WIDTH,
    "d_kv": WIDTH // HEADS,
    "d_ff": INNER,
    "num_heads": HEADS,
    "num_layers": 3,
    "vocab_size": ROWS,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}


def with_queries(model: Any) -> nn.Module:
    """Draw the learned queries: transformers starts them at zero, where all of them stay equal."""
    nn.init.normal_(model.get_parameter("query_tokens"))
    made: nn.Module = model
    return made


def _model(language: dict[str, Any]) -> nn.Module:
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER | {"vocab_size": 16},
        text_config=language,
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
    )
    return with_queries(Blip2ForConditionalGeneration(config))


def _opt() -> nn.Module:
    language = {"model_type": "opt", "ffn_dim": INNER, "vocab_size": ROWS, "word_embed_proj_dim": WIDTH}
    return _model(SHARED | language | IDS | {"max_position_embeddings": MAX_POSITIONS})


def _processor() -> Blip2Processor:
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tokenizer(additional_special_tokens=["<image>"]), num_query_tokens=QUERIES)
    processor.chat_template = "Question: " + TURN.replace("PICTURE", "").replace("REPLY", "Answer:")
    return processor


PICO = Pico(_opt, _processor)
PICO_T5 = Pico(lambda: _model(T5), _processor)
