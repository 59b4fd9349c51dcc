"""SmolVLM2: Idefics3's build, grown to videos."""

from vlmc.runtime.deployment import OwnProcessor
from vlmc.toolchain.families.idefics3 import Idefics3


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration` (arXiv 2504.05299)."""

    name = model_type = "smolvlm"
    # SmolVLM's own needs torchvision and num2words for videos; for images the two are the same.
    own_processor = OwnProcessor(name="Idefics3Processor")
