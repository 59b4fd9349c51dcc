"""PaliGemma: a SigLIP vision tower, a linear projection, a Gemma language model that reads its prompt in both directions."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.toolchain.deploy.causal import SoftCapped
from vlmc.toolchain.deploy.vision import ConnectedTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`, PaliGemma 1 and 2 (arXiv 2407.07726, 2412.03555).

    Its input is a prefix (images, question, a newline) and a suffix (the answer), told apart by `token_type_ids`.
    """

    name = model_type = "paligemma"
    towers = (
        Tower(Part.VISION, "*vision_tower.*encoder.layers"),
        Tower(Part.LANGUAGE, "*language_model.*layers"),
    )
    interface = ("*multi_modal_projector.*",)
    documented = "{images}answer en {prompt}"  # the task prefix for questions; the processor adds the newline
    needs_image = True
    answer_type = 1  # the suffix, which is read causally

    def joint(self, prompt: str) -> str | None:
        return None  # the processor's newline separates them

    def wiring(self, model: nn.Module) -> Wiring:
        gemma: Any = model
        tower = ConnectedTower(gemma.model.vision_tower, gemma.model.multi_modal_projector)
        cap = getattr(gemma.config.get_text_config(), "final_logit_softcapping", None)  # Gemma 2 has one
        head = gemma.lm_head if cap is None else SoftCapped(gemma.lm_head, cap)
        return Wiring(tower, gemma.model.language_model, head, prefix_mask="prompt", first_position=1)
