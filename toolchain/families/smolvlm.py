"""SmolVLM2: Idefics3's build, grown to videos."""

from vlmc.runtime.deployment import OwnProcessor
from vlmc.toolchain.families.idefics3 import Idefics3


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration` (arXiv 2504.05299)."""

    name = model_type = "smolvlm"
    # SmolVLM's own wants torchvision and num2words for its videos; with images the two do the same.
    own_processor = OwnProcessor(name="Idefics3Processor")
