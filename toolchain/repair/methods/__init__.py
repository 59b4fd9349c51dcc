"""Repair methods, in a table by name.

A new one is an `Adapted` in a file of its own, a line in `METHODS`, and its name in `RepairMethod` of the settings.
"""

from vlmc.toolchain.repair.methods.base import Adapted, AdapterSpec, Method
from vlmc.toolchain.repair.methods.lors import LoRS
from vlmc.toolchain.repair.methods.low_rank import LoRA
from vlmc.toolchain.repair.methods.masked_full import MaskedFull
from vlmc.toolchain.repair.methods.sparse_lora import SparseLoRA
from vlmc.toolchain.repair.methods.spp import SPP
from vlmc.toolchain.settings import RepairMethod

__all__ = ["METHODS", "SPP", "Adapted", "AdapterSpec", "LoRA", "LoRS", "MaskedFull", "Method", "SparseLoRA"]

_RESSA = "https://arxiv.org/abs/2404.02424"
_LORA = "https://arxiv.org/abs/2106.09685"
METHODS: dict[RepairMethod, Method] = {
    "ressa": Method("ressa", _RESSA, SparseLoRA, SparseLoRA, LoRA),
    "sparse-lora": Method("sparse-lora", _RESSA, SparseLoRA, SparseLoRA, LoRA, distilled=False),
    "lora": Method("lora", _LORA, LoRA, None, LoRA),
    "lora-remask": Method("lora-remask", _LORA, LoRA, SparseLoRA, LoRA),
    "lors": Method("lors", "https://arxiv.org/abs/2501.08582", LoRS, SparseLoRA, LoRA),
    "spp": Method("spp", "https://arxiv.org/abs/2405.16057", SPP, SPP, LoRA, rate=3.0, peft_type="VLMC_SPP"),
    "masked-full": Method("masked-full", _RESSA, MaskedFull, MaskedFull, MaskedFull, rate=0.3, peft_type="VLMC_MASKED_FULL"),
}
