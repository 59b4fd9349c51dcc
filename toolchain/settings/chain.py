"""Options of the whole chain."""

from typing import Literal, TypeVar

from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.prune import CalibrationPrecision, PruneSettings
from vlmc.toolchain.settings.repair import Precision, RepairMethod, RepairSettings, TrainingSettings

Group = TypeVar("Group", bound=Settings)


class CompressSettings(TrainingSettings, PruneSettings):
    """The whole chain: how to prune, and how to repair."""

    panel = "Repair"

    repair: Literal[RepairMethod, "none"] = "ressa"
    """Repair method, as in vlmc repair, or none to stop after pruning."""
    precision: Precision = "fp32"
    """Type of the matrix products in training: fp32, bf16 or fp16; trained weights are kept in fp32."""
    prune_precision: CalibrationPrecision = "auto"
    """Type that calibration runs in, as --precision of vlmc prune: auto, fp32, bf16 or fp16."""

    def of(self, group: type[Group]) -> Group:
        """Return the options of one step."""
        shared = {name: value for name, value in self.model_dump().items() if name in group.model_fields}
        named_apart = {"method": self.repair} if issubclass(group, RepairSettings) else {"precision": self.prune_precision}
        return group(**shared | named_apart)
