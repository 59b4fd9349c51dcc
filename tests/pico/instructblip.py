"""InstructBLIP: BLIP-2 whose Q-Former reads the question by a tokenizer of its own; no chat template."""

from typing import Any

from torch import nn
from transformers import (
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from tests.pico.base import IMAGE, MAX_POSITIONS, QUERIES, ROWS, SIDE, SPECIAL, TEXT, VOCABULARY, Pico, tokenizer
from tests.pico.blip2 import QFORMER, T5, VISION, with_queries


def _model(language: dict[str, Any]) -> nn.Module:
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config=QFORMER | {"vocab_size": ROWS},
        text_config=language,
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
    )
    return with_queries(InstructBlipForConditionalGeneration(config))


def _vicuna() -> nn.Module:
    return _model(TEXT | {"model_type": "llama", "max_position_embeddings": MAX_POSITIONS})


def _processor() -> InstructBlipProcessor:
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    language = tokenizer(additional_special_tokens=["<image>"])
    other = tokenizer(words=(*SPECIAL, *reversed(VOCABULARY[len(SPECIAL) :])))
    return InstructBlipProcessor(images, language, qformer_tokenizer=other, num_query_tokens=QUERIES)


PICO = Pico(_vicuna, _processor)
PICO_T5 = Pico(lambda: _model(T5), _processor)
