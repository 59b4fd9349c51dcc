"""What a repair method is: the adapters that it trains, whether the dense model teaches, and what becomes of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from vlmc.toolchain.repair.adapters.attaching import Adapted, AdapterPlan
from vlmc.toolchain.repair.methods.low_rank import LoRA
from vlmc.toolchain.settings import Kernel


@dataclass(frozen=True)
class Method:
    """One way to repair: what is trained on a pruned layer, and what on a layer of the interface, which is dense.

    `merged` is the adapter as which a pruned layer's is merged: masked, whatever it was in training; None: it is never
    merged. `rate` is the peak learning rate beside RESSA's own. `peft_type` is what peft is told of the saved adapter.
    """

    name: str
    url: str
    pruned: type[Adapted]
    merged: type[Adapted] | None
    dense: type[Adapted] = LoRA
    distilled: bool = True
    rate: float = 1.0
    peft_type: str = "LORA"

    def plan(
        self, masks: Mapping[str, Tensor], dense: Iterable[str], rank: int, alpha: float, kernel: Kernel = "tiled"
    ) -> dict[str, AdapterPlan]:
        """Return what is trained: on every layer that has a keep-mask, boolean or packed, and on these dense ones."""
        plan = {name: AdapterPlan(self.pruned, rank, alpha, mask, kernel) for name, mask in masks.items()}
        return plan | {name: AdapterPlan(self.dense, rank, alpha) for name in dense}
