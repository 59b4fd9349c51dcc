"""The options of every step, each written once: a field and its docstring make the flag, its help, the recipe's key."""

from vlmc.toolchain.settings.base import RARE, Settings, advanced
from vlmc.toolchain.settings.chain import CompressSettings
from vlmc.toolchain.settings.data import DATA_OPTIONS, SAYS_WHICH_DATA, DataSettings
from vlmc.toolchain.settings.deploy import ExportSettings, RoundingSettings, RunSettings
from vlmc.toolchain.settings.measure import BenchSettings, EvalSettings, Metric, SweepSettings, WriteSettings
from vlmc.toolchain.settings.prune import (
    CalibrationPrecision,
    MethodSettings,
    PruneMethod,
    PruneSettings,
    Ratios,
    TargetSettings,
    TokenPolicy,
)
from vlmc.toolchain.settings.repair import (
    CacheKind,
    Direction,
    Kernel,
    Precision,
    RepairMethod,
    RepairSettings,
    TeacherMode,
    TrainingSettings,
)
from vlmc.toolchain.settings.serve import ServeSettings

__all__ = [
    "DATA_OPTIONS",
    "RARE",
    "SAYS_WHICH_DATA",
    "BenchSettings",
    "CacheKind",
    "CalibrationPrecision",
    "CompressSettings",
    "DataSettings",
    "Direction",
    "EvalSettings",
    "ExportSettings",
    "Kernel",
    "MethodSettings",
    "Metric",
    "Precision",
    "PruneMethod",
    "PruneSettings",
    "Ratios",
    "RepairMethod",
    "RepairSettings",
    "RoundingSettings",
    "RunSettings",
    "ServeSettings",
    "Settings",
    "SweepSettings",
    "TargetSettings",
    "TeacherMode",
    "TokenPolicy",
    "TrainingSettings",
    "WriteSettings",
    "advanced",
]
