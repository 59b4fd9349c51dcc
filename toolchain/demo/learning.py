"""Training of a demo model: the task loss on answers, and at first a dense loss that tells which digit is where.

Shapes: B images, T tokens, K = 4 cells, I image features, D width.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Blip2ForConditionalGeneration

from vlmc.toolchain.demo.architectures import DemoModel
from vlmc.toolchain.demo.packing import IGNORE, Batch, Recipe, batches, warped
from vlmc.toolchain.demo.scenes import COLOURS
from vlmc.toolchain.demo.vocabulary import IMAGE, VOCABULARY


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a demo model's training; `grounded` is the share of steps with the dense loss."""

    steps: int
    rate: float
    warm: int
    grounded: float
    decay: float = 0.02
    variants: int = 48


def hidden(model: DemoModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the last hidden states, B x T x D, and the image features, B x I x D."""
    if isinstance(model, Blip2ForConditionalGeneration):
        features_BID, decoder = (
            model.get_image_features(batch.pixels_BCHW).pooler_output,
            model.language_model.model,
        )
    else:
        features_BID, decoder = (
            torch.stack(model.get_image_features(batch.pixels_BCHW).pooler_output),
            model.model.language_model,
        )
    embedded_BTD = model.get_input_embeddings()(batch.ids_BT)
    at_image_BT1 = (batch.ids_BT == VOCABULARY.index(IMAGE))[:, :, None]
    embedded_BTD = embedded_BTD.masked_scatter(at_image_BT1, features_BID)
    last_BTD = decoder(
        inputs_embeds=embedded_BTD,
        attention_mask=batch.mask(),
        position_ids=batch.positions_BT,
        use_cache=False,
    ).last_hidden_state
    return last_BTD, features_BID


def task_loss(model: DemoModel, last_BTD: Tensor, batch: Batch) -> Tensor:
    """Return the weighted cross-entropy of the answers' tokens."""
    chosen_BT = batch.labels_BT != IGNORE
    logits = model.get_output_embeddings()(last_BTD[chosen_BT])
    losses = functional.cross_entropy(logits, batch.labels_BT[chosen_BT], reduction="none")
    weights = batch.weights_BT[chosen_BT]
    return (losses * weights).sum() / weights.sum()


class Grounding(nn.Module):
    """Two linear probes of the image features: which digit, and which colour, is in each cell."""

    cells_KI: Tensor

    def __init__(self, width: int, cells_KI: Tensor) -> None:
        super().__init__()
        self.digit = nn.Linear(width, 11)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.register_buffer("cells_KI", cells_KI)

    def forward(self, features_BID: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of both probes; `cells_KI` averages the features of each cell."""
        cell_BKD = self.cells_KI @ features_BID
        digit_loss = functional.cross_entropy(self.digit(cell_BKD).flatten(0, 1), batch.digit_BK.flatten())
        return digit_loss + functional.cross_entropy(self.colour(cell_BKD).flatten(0, 1), batch.colour_BK.flatten())


def train(
    model: DemoModel,
    grounding: Grounding,
    recipe: Recipe,
    hyper: Hyperparameters,
    seed: int,
    report: Callable[[int], None],
) -> None:
    """Train in place with AdamW and a cosine schedule; `report` is called every 1,000 steps."""
    parameters = [*model.parameters(), *grounding.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=hyper.rate, betas=(0.9, 0.98), weight_decay=hyper.decay, fused=True)
    started, shown = time.monotonic(), 0.0
    model.train()
    source = batches(recipe, f"vlmc demo training {seed}", warped(seed, hyper.variants))
    for step, batch in zip(range(1, hyper.steps + 1), source, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = hyper.rate * _schedule(step, hyper)
        last_BTD, features_BID = hidden(model, batch)
        loss = task = task_loss(model, last_BTD, batch)
        share = max(0.0, 1.0 - step / (hyper.grounded * hyper.steps)) if hyper.grounded else 0.0
        if share:
            loss = task + share * grounding(features_BID, batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        shown = 0.98 * shown + 0.02 * task.item() if shown else task.item()
        if step % 100 == 0:
            print(
                f"step {step}: loss {shown:.4f}, {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if step % 1000 == 0:
            report(step)
            model.train()


def _schedule(step: int, hyper: Hyperparameters) -> float:
    if step < hyper.warm:
        return step / hyper.warm
    return 0.5 * (1 + math.cos(math.pi * (step - hyper.warm) / (hyper.steps - hyper.warm)))
