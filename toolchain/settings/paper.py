"""The setting of RESSA's paper and its released code (arXiv 2404.02424), as options: `--recipe ressa-paper`."""

from typing import Any

from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.repair import RepairSettings

NAME = "ressa-paper"
_PRUNE = {"method": "wanda", "calibration": 128}
_REPAIR = {
    "rank": 8,
    "alpha": 16.0,
    "lr": 1e-4,
    "batch": 32,
    "samples": 25_000,
    "steps": 782,  # 25,000 samples once
    "kl": "forward",
    "temperature": 1.0,
    "hidden": 0.0,
}


def paper(group: type[Settings]) -> dict[str, Any]:
    """Return the paper's values of the options that a group has.

    Its ranks are 8 in the language model, 4 in the vision tower and 2 in the Q-Former; here all have the largest.
    """
    method = {"method": "ressa"} if issubclass(group, RepairSettings) else {"repair": "ressa"}
    return {name: value for name, value in (_PRUNE | _REPAIR | method).items() if name in group.model_fields}
