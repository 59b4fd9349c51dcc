"""Training of `smol`: the vision encoder alone, its alignment with a frozen language model, then all of it together.

Shapes: B scenes, T tokens, I image tokens, L width of the language model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.toolchain.demo.packing import warped
from vlmc.toolchain.smol.keeping import Keeping
from vlmc.toolchain.smol.language import IMAGE_ID
from vlmc.toolchain.smol.looks import Look, training_look
from vlmc.toolchain.smol.muon import Muon
from vlmc.toolchain.smol.packed import IGNORE, Packed
from vlmc.toolchain.smol.packing import Packer
from vlmc.toolchain.smol.scenes import Scene
from vlmc.toolchain.smol.tuning import adapt, fill
from vlmc.toolchain.smol.vision import Naming, Vision, whiten
from vlmc.toolchain.smol.words import Words, follow


@dataclass(frozen=True)
class Plan:
    """How long and how fast each stage takes; the rate falls to zero over the last share `fall` of a stage's steps.

    After the first stage `scenes` of the `seen` ones are asked about, in rows of at most `tokens`; `emphasis` weighs the
    kinds of questions. `prepared` scenes decide how patch embedding and connector start. In the last stage adapters of rank
    `rank` on the language model learn as well; `keep` weighs how far it goes from what it said about `kept` tokens of text.
    """

    vision_steps: int = 1_000
    vision_scenes: int = 32
    vision_rate: float = 1.2e-3
    alignment_steps: int = 400
    joint_steps: int = 600
    scenes: int = 4
    seen: int = 20
    tokens: int = 128
    connector_rate: float = 4e-3
    encoder_rate: float = 6e-4
    language_rate: float = 1e-3
    joint_share: float = 0.5
    rank: int = 8
    kept: int = 64
    keep: float = 2.0
    warm: int = 10
    fall: float = 1.0
    decay: float = 0.05
    variants: int = 16
    prepared: int = 600
    emphasis: dict[str, float] = field(default_factory=lambda: {"caption": 2.5, "name": 1.5, "where": 2.5})

    @property
    def steps(self) -> int:
        """All steps of the three stages."""
        return self.vision_steps + self.alignment_steps + self.joint_steps


class Training:
    """Everything that training changes, and how far it is: `step` counts over all stages.

    `taught` says that the connector knows some words already; `former` is what it was like before the encoder, trained
    already, went on alone.
    """

    def __init__(self, model: Any, tokenizer: Any, plan: Plan, seed: int) -> None:
        self.model, self.plan, self.seed, self.step, self.taught = model, plan, seed, 0, False
        self.packer, self.vision = Packer(tokenizer), Vision(model)
        self.former: Vision | None = None
        self.naming = Naming(self.vision.width)
        self.words = Words(model.get_input_embeddings().weight.detach(), tokenizer)
        attend_plainly(model)
        self.language = adapt(model, plan.rank, seed)
        self.vision.requires_grad_(True)
        self.keeping = Keeping(model, self.language, tokenizer)
        self._coverage_VNHW = warped(seed, plan.variants)
        self._optimizers = self._fresh_optimizers()

    def run(self, report: Callable[["Training", float], None]) -> None:
        """Train from `step` to the end; `report` is called after every step with its loss."""
        if self.step == 0 and not self.taught:
            whiten(self.vision, self.look("whitening", self.plan.prepared)[0].pixels_BCHW)
        while self.step < self.plan.steps:
            if self.step == self.plan.vision_steps and (self.former is not None or not self.taught):
                self.start_alignment()
            self._let_language_learn(self._joint)
            loss = self._one_step()
            self.step += 1
            report(self, loss)

    def start_alignment(self) -> None:
        """Let the connector write, as well as a linear map can, the words for what the encoder tells.

        A connector that has learned goes on saying what it said before, as well as a linear map can.
        """
        look, scenes = self.look("wording", self.plan.prepared)
        if self.former is not None:
            follow(self.vision, self.former, look.pixels_BCHW)
        else:
            self.words.teach(self.vision, look.pixels_BCHW, scenes)
        self.taught, self.former = True, None
        self._optimizers = self._fresh_optimizers()

    @property
    def language_learned(self) -> bool:
        """Whether the language model is another than it was."""
        return any(part.any() for name, part in self.language.parameters().items() if name.endswith(".lora_B"))

    def state(self) -> dict[str, Any]:
        """Return what `load_state` goes on from."""
        return {
            "step": self.step,
            "seed": self.seed,
            "vision": self.vision.state_dict(),
            "naming": self.naming.state_dict(),
            "language": self.language.parameters(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state: the steps that follow are those of a training that never stopped."""
        self.step = state["step"]
        self.vision.load_state_dict(state["vision"])
        self.naming.load_state_dict(state["naming"])
        fill(self.language, state["language"])
        for optimizer, stored in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)

    def _fresh_optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """AdamW, but Muon for the connector, which must learn rare words as fast as frequent ones."""
        seeing = [*self.vision.encoder.parameters(), *self.naming.parameters()]
        return (
            torch.optim.AdamW(seeing, betas=(0.9, 0.98), weight_decay=self.plan.decay),
            Muon(self.vision.connector.parameters(), momentum=0.95, iterations=4),
            torch.optim.AdamW(self.language.parameters().values(), betas=(0.9, 0.98), weight_decay=0.0),
        )

    def _let_language_learn(self, learns: bool) -> None:
        for parameter in self.language.parameters().values():
            parameter.requires_grad_(learns)

    def _one_step(self) -> float:
        rates = self._set_rates()
        loss, told = self._vision_loss() if self.step < self.plan.vision_steps else self._answer_loss()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_([*self.vision.encoder.parameters(), *self.naming.parameters()], 1.0)
        nn.utils.clip_grad_norm_(self.language.parameters().values(), 1.0)
        for optimizer, rate in zip(self._optimizers, rates, strict=True):
            if rate > 0:
                optimizer.step()
        return told

    def _set_rates(self) -> tuple[float, float, float]:
        """Set and return the peak rates of this stage's optimizers; they rise, stay, and fall, in each stage anew."""
        plan = self.plan
        done, steps, rates = self.step, plan.vision_steps, (plan.vision_rate, 0.0, 0.0)
        if done >= steps:
            done, steps, rates = done - steps, plan.alignment_steps, (plan.encoder_rate, plan.connector_rate, 0.0)
            if done >= steps:
                share = plan.joint_share
                rates = (share * plan.encoder_rate, share * plan.connector_rate, plan.language_rate)
                done, steps = done - steps, plan.joint_steps
        share = min(1.0, (done + 1) / plan.warm, (steps - done) / (plan.fall * steps))
        for optimizer, rate in zip(self._optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        return rates

    def look(self, what: str, scenes: int) -> tuple[Look, list[Scene]]:
        """Draw training scenes for some purpose; which they are is decided by the seed and the number of the step alone."""
        return training_look(Random(f"vlmc smol {what} {self.seed} {self.step}"), scenes, self._coverage_VNHW)

    def _vision_loss(self) -> tuple[Tensor, float]:
        look, _ = self.look("seeing", self.plan.vision_scenes)
        loss: Tensor = self.naming(self.vision.seen(look.pixels_BCHW), look)
        return loss, loss.item()

    def _answer_loss(self) -> tuple[Tensor, float]:
        """Return the loss of the answers, and that of naming, so that the encoder goes on learning to tell things apart."""
        plan, random = self.plan, Random(f"vlmc smol asking {self.seed} {self.step}")
        look, scenes = self.look("speaking", plan.seen)
        rows = [self.packer.fill(scene, plan.tokens, plan.emphasis, random) for scene in scenes[: plan.scenes]]
        seen_BID = self.vision.seen(look.pixels_BCHW)
        image_BIL = self.vision.connector.modality_projection(seen_BID[: plan.scenes])
        task = answer_loss(self.model, self.packer.pack(rows), image_BIL)
        loss = task + self.naming(seen_BID, look)
        if self._joint:
            loss = loss + plan.keep * self.keeping.loss(plan.kept, random)
        return loss, task.item()

    @property
    def _joint(self) -> bool:
        """Whether the language model learns as well."""
        return self.step >= self.plan.vision_steps + self.plan.alignment_steps


def attend_plainly(model: Any) -> None:
    """Let a model attend by plain products: quicker than the fused ones through short rows."""
    for part in (model.model.text_model, model.model.vision_model):
        part.config._attn_implementation = "eager"


def answer_loss(model: Any, packed: Packed, image_BIL: Tensor) -> Tensor:
    """Return the weighted mean of the cross-entropy of the answers' tokens."""
    chosen_BT = packed.labels_BT != IGNORE
    logits = model.lm_head(last_states(model, packed, image_BIL)[chosen_BT])
    losses = functional.cross_entropy(logits, packed.labels_BT[chosen_BT], reduction="none")
    weights = packed.weights_BT[chosen_BT]
    return (losses * weights).sum() / weights.sum()


def last_states(model: Any, packed: Packed, image_BIL: Tensor) -> Tensor:
    """Return the language model's last states, B x T x L, for rows about these images."""
    embedded_BTL = model.get_input_embeddings()(packed.ids_BT)
    at_image_BT1 = (packed.ids_BT == IMAGE_ID)[:, :, None]
    states: Tensor = model.model.text_model(
        inputs_embeds=embedded_BTL.masked_scatter(at_image_BT1, image_BIL),
        attention_mask=torch.zeros(1).masked_fill(~packed.mask(), torch.finfo(torch.float32).min),
        position_ids=packed.positions_BT,
        use_cache=False,
    ).last_hidden_state
    return states
