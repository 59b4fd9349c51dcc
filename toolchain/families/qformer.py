"""What the models share that look at a picture through a Q-Former's learned queries: BLIP-2 and InstructBLIP."""

from typing import Any

from torch import nn

from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import SLOT, Family, Processor


class QueryingFamily(Family):
    """A ViT, a Q-Former, a language model. The processor itself puts the picture's tokens before the whole text."""

    interface = ("*qformer.*", "*language_projection")

    def picture_token(self, processor: Processor) -> str:
        return SLOT

    def prompt(self, processor: Processor, pictures: int = 1) -> str:
        if pictures != 1:
            raise InputError(f"a {self.name} model looks at one picture, {pictures} were given")
        # A template may name the picture or not: its tokens come before the text either way.
        return self.template(processor).replace(SLOT, "")

    def generation_configs(self, model: nn.Module) -> tuple[Any, ...]:
        # transformers hands generation over to the language model, with the language model's own configuration
        some: Any = model
        return some.language_model.generation_config, some.config.text_config
