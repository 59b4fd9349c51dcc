"""What models with a Q-Former share, BLIP-2 and InstructBLIP: learned queries read the image."""

from typing import Any

from torch import nn

from vlmc.runtime.controls import Controls
from vlmc.runtime.errors import InputError
from vlmc.toolchain.families.base import SLOT, Family, Processor
from vlmc.toolchain.families.prompting import QUESTION, controls_of, pieces_of


class QueryingFamily(Family):
    """A ViT, a Q-Former, a language model. The processor puts the image tokens before the text."""

    interface = ("*qformer.*", "*language_projection")
    needs_image = True

    def image_token(self, processor: Processor) -> str:
        return SLOT

    def prompt(
        self,
        processor: Processor,
        images: int = 1,
        question: str = QUESTION,
        system: str = "",
        controls: Controls | None = None,
    ) -> str:
        if images != 1:
            raise InputError(f"a {self.name} model takes one image, but {images} were given")
        # The image tokens come before the text, whether the template has a place for them or not.
        controls = controls or controls_of(processor, SLOT)
        asked = pieces_of(question, images, SLOT, controls)
        return self.template(processor, asked, controls.as_text(system)).replace(SLOT, "")

    def generation_configs(self, model: nn.Module) -> tuple[Any, ...]:
        # transformers generates with the language model and its configuration
        some: Any = model
        return some.language_model.generation_config, some.config.text_config
