"""What the models share that look at an image through a Q-Former's learned queries: BLIP-2 and InstructBLIP."""

from typing import Any

from torch import nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import SLOT, Family, Processor
from vlmc.toolchain.families.prompting import QUESTION, pieces_of


class QueryingFamily(Family):
    """A ViT, a Q-Former, a language model. The processor itself puts the image's tokens before the whole text."""

    interface = ("*qformer.*", "*language_projection")

    def image_token(self, processor: Processor) -> str:
        return SLOT

    def prompt(self, processor: Processor, images: int = 1, question: str = QUESTION, system: str = "") -> str:
        if images != 1:
            raise InputError(f"a {self.name} model looks at one image, {images} were given")
        # A template may name the image or not: its tokens come before the text either way.
        return self.template(processor, pieces_of(question, images, SLOT), system).replace(SLOT, "")

    def generation_configs(self, model: nn.Module) -> tuple[Any, ...]:
        # transformers hands generation over to the language model, with the language model's own configuration
        some: Any = model
        return some.language_model.generation_config, some.config.text_config
