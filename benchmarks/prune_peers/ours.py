"""vlmc's own contestant: the prune stage, as `vlmc prune` runs it."""

from pathlib import Path
from typing import get_args

from prune_peers.job import Job, main
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.settings import CalibrationPrecision, PruneMethod, PruneSettings
from vlmc.toolchain.stages.prune import Prune


def prune(job: Job) -> None:
    """Prune; the calibration samples are the demo's first, from which the peers' file was made."""
    method = next(name for name in get_args(PruneMethod) if name == job.method)
    precision = next(name for name in get_args(CalibrationPrecision) if name == job.dtype)
    options = PruneSettings(method=method, refit=job.refit, calibration=job.samples, precision=precision)
    Prune(options).run(SavedModel.find(job.model), Path(job.out), force=True)


if __name__ == "__main__":
    main(prune)
