"""Loading: models as repair holds them: in which type, whole or in shards, with blocks recomputed to save memory."""

from vlmc.toolchain.repair.loading.models import (
    Loading,
    Sharded,
    Whole,
    check_shards,
    own_part,
    own_rows,
    shard_measures,
    shards,
)
from vlmc.toolchain.repair.loading.precision import autocast, restore_scaler, scaler, scaler_state
from vlmc.toolchain.repair.loading.recompute import recompute

__all__ = [
    "Loading",
    "Sharded",
    "Whole",
    "autocast",
    "check_shards",
    "own_part",
    "own_rows",
    "recompute",
    "restore_scaler",
    "scaler",
    "scaler_state",
    "shard_measures",
    "shards",
]
