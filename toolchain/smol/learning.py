"""Training of `smol` in two stages: the vision tower alone, then its alignment with a language model that stays as it is.

Shapes: B scenes, T tokens, I image tokens, L width of the language model, K cells, V words of the vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.toolchain.demo.packed import IGNORE, Packed
from vlmc.toolchain.demo.packing import warped
from vlmc.toolchain.smol.language import IMAGE_ID
from vlmc.toolchain.smol.packing import Look, Packer, Recipe, looks
from vlmc.toolchain.smol.vision import Vision, VisionLoss


@dataclass(frozen=True)
class Plan:
    """How long and how fast each stage takes; the rate falls to zero over the last share `fall` of the steps."""

    vision_steps: int = 1_000
    vision_scenes: int = 64
    vision_rate: float = 1e-3
    alignment_steps: int = 2_500
    alignment_rate: float = 4e-4
    warm: int = 100
    fall: float = 0.3
    decay: float = 0.02
    variants: int = 16

    @property
    def steps(self) -> int:
        """All steps of both stages."""
        return self.vision_steps + self.alignment_steps


class Training:
    """Everything that training changes, and how far it is: `step` counts over both stages."""

    def __init__(self, model: Any, tokenizer: Any, recipe: Recipe, plan: Plan, seed: int) -> None:
        self.model, self.recipe, self.plan, self.seed = model, recipe, plan, seed
        self.packer, self.vision, self.step = Packer(tokenizer), Vision(model), 0
        embedding_VL = model.get_input_embeddings().weight.detach()
        self.vision_loss = VisionLoss(model.config.vision_config.hidden_size, embedding_VL, tokenizer)
        self._learned = [*self.vision.parameters(), *self.vision_loss.parameters()]
        for parameter in (*model.model.language_model.parameters(), *model.lm_head.parameters()):
            parameter.requires_grad_(False)
        _quicken(model.model.language_model)
        self._coverage_VNHW = warped(seed, plan.variants)
        self._optimizer = self._fresh_optimizer()

    def run(self, report: Callable[["Training", float], None]) -> None:
        """Train from `step` to the end; `report` is called after every step with its loss."""
        while self.step < self.plan.steps:
            if self.step == self.plan.vision_steps:
                self._optimizer = self._fresh_optimizer()
            loss = self._one_step()
            self.step += 1
            report(self, loss)

    def state(self) -> dict[str, Any]:
        """Return what `load_state` goes on from."""
        return {
            "step": self.step,
            "seed": self.seed,
            "vision": self.vision.state_dict(),
            "vision_loss": self.vision_loss.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state: the steps that follow are those of a training that never stopped."""
        self.step = state["step"]
        self.vision.load_state_dict(state["vision"])
        self.vision_loss.load_state_dict(state["vision_loss"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self._learned, betas=(0.9, 0.98), weight_decay=self.plan.decay)

    def _one_step(self) -> float:
        self.vision.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        aligning = self.step >= self.plan.vision_steps
        loss, told = self._alignment_loss() if aligning else self._vision_loss()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._learned, 1.0)
        self._optimizer.step()
        return told

    def _rate(self) -> float:
        """The rate rises, stays, and falls, in each stage anew."""
        plan = self.plan
        if self.step < plan.vision_steps:
            done, steps, rate = self.step, plan.vision_steps, plan.vision_rate
        else:
            done, steps, rate = self.step - plan.vision_steps, plan.alignment_steps, plan.alignment_rate
        return rate * min(1.0, (done + 1) / plan.warm, (steps - done) / (plan.fall * steps))

    def _looks(self, what: str, scenes: int) -> Iterator[Any]:
        """Draw this step's scenes, which its number alone decides."""
        return looks(f"vlmc smol {what} {self.seed} {self.step}", scenes, self._coverage_VNHW)

    def _vision_loss(self) -> tuple[Tensor, float]:
        look, _, _ = next(self._looks("seeing", self.plan.vision_scenes))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss: Tensor = self.vision_loss(self.vision, look)
        return loss, loss.item()

    def _alignment_loss(self) -> tuple[Tensor, float]:
        """Return the loss of answers, and for a while that of the first stage on other scenes too."""
        look, scenes, random = next(self._looks("speaking", self.recipe.scenes))
        packed = self.packer.pack([self.packer.fill(scene, self.recipe, random) for scene in scenes])
        task = answer_loss(self.model, self.vision, packed, look)
        share = 1.0 - (self.step - self.plan.vision_steps) / self.plan.alignment_steps
        seen, _ = self._vision_loss()
        return task + 0.3 * share * seen, task.item()


def answer_loss(model: Any, vision: Vision, packed: Packed, look: Look) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens."""
    chosen_BT = packed.labels_BT != IGNORE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.lm_head(last_states(model, vision, packed, look.pixels_BCHW)[chosen_BT])
    return functional.cross_entropy(logits.float(), packed.labels_BT[chosen_BT])


def last_states(model: Any, vision: Vision, packed: Packed, pixels_BCHW: Tensor) -> Tensor:
    """Return the language model's last states, B x T x L."""
    embedded_BTL = model.get_input_embeddings()(packed.ids_BT)
    at_image_BT1 = (packed.ids_BT == IMAGE_ID)[:, :, None]
    embedded_BTL = embedded_BTL.masked_scatter(at_image_BT1, vision(pixels_BCHW).to(embedded_BTL.dtype))
    states: Tensor = model.model.language_model(
        inputs_embeds=embedded_BTL,
        attention_mask=torch.zeros(1).masked_fill(~packed.mask(), torch.finfo(torch.bfloat16).min),
        position_ids=packed.positions_BT,
        use_cache=False,
    ).last_hidden_state
    return states


def _quicken(language: Any) -> None:
    """Hold the matrices of the frozen language model in bfloat16, as autocast would round them anew in every step.

    And let it attend by plain matrix products: on a CPU they go back through short rows in half the time of the fused ones.
    """
    language.config._attn_implementation = "eager"
    for part in language.modules():
        if isinstance(part, nn.Linear):
            part.to(torch.bfloat16)
