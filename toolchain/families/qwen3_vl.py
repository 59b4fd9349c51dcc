"""Qwen3-VL: a ViT whose middle layers also feed the language model's first layers (deepstack), a Qwen3 language model."""

from typing import Any

from torch import nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.deployment import OwnProcessor, Patches
from vlmc.toolchain.deploy.patches import DeepstackTower
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families.base import Family, Tower


class Qwen3VL(Family):
    """`Qwen3VLForConditionalGeneration` (arXiv 2511.21631)."""

    name = model_type = "qwen3_vl"
    towers = (Tower(Part.VISION, "*visual.blocks"), Tower(Part.LANGUAGE, "*language_model.layers"))
    interface = ("*visual.merger.*", "*visual.deepstack_merger_list.*")
    own_processor = OwnProcessor(name="Qwen3VLProcessor", images_only=True)

    def wiring(self, model: nn.Module) -> Wiring:
        qwen: Any = model
        config = qwen.config.vision_config
        layout = Patches(merge=config.spatial_merge_size, grid=int(config.num_position_embeddings**0.5))
        deep = len(config.deepstack_visual_indexes)
        tower, language = DeepstackTower(qwen), qwen.model.language_model
        return Wiring(tower, language, qwen.lm_head, layout=layout, positions="m-rope", deepstack=deep)
