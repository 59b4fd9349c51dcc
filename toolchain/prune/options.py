"""What the options of pruning come to: the pruner, each tower's target, and what does not go together."""

from vlmc.runtime.artifact import Part
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration import Need
from vlmc.toolchain.machine.devices import choose_device
from vlmc.toolchain.machine.processes import ProcessGroup
from vlmc.toolchain.prune.methods import PRUNERS, Pruner
from vlmc.toolchain.prune.patterns import parse
from vlmc.toolchain.prune.ratios import percentage
from vlmc.toolchain.prune.refinements.dsnot import with_dsnot
from vlmc.toolchain.prune.refinements.refit import with_refit
from vlmc.toolchain.settings import PruneSettings


def check_options(options: PruneSettings, group: ProcessGroup) -> None:
    """Check what can be checked before the model or the data is read.

    Raises:
        InputError: an option cannot be read, or does not go with another one.
        EnvironmentLacks: the device is not there.
    """
    targets, pruner = targets_of(options), pruner_of(options)
    choose_device(options.device)
    if options.tokens != "all" and Part.LANGUAGE not in targets and not options.layers:
        raise InputError(f"--tokens {options.tokens} weighs tokens of the language model, which is left dense")
    if options.tokens != "all" and pruner.need is Need.NOTHING:
        raise InputError(f"--tokens {options.tokens}: {options.method} uses no calibration tokens: add --refit")
    if options.ratios != "uniform":
        for pattern in targets.values():
            percentage(pattern, options.ratios)
    if options.reconstruct and group.size > 1:
        raise InputError("--reconstruct trains in one process: start it without torchrun")


def targets_of(options: PruneSettings) -> dict[Part, SparsityPattern]:
    """Return the pattern of each tower that is pruned.

    Raises:
        InputError: a sparsity cannot be read, or both towers are left dense.
    """
    chosen = {Part.VISION: options.vision, Part.LANGUAGE: options.language}
    patterns = {part: parse(options.target if text is None else text) for part, text in chosen.items()}
    found = {part: pattern for part, pattern in patterns.items() if pattern is not None}
    if not found and not options.layers:
        raise InputError("nothing to prune: --vision and --language are both none")
    return found


def pruner_of(options: PruneSettings) -> Pruner:
    """Return the method, with the refinements that follow it.

    Raises:
        InputError: a refinement does not go with the method.
    """
    pruner = PRUNERS[options.method]
    pruner = with_dsnot(pruner) if options.dsnot else pruner
    return with_refit(pruner) if options.refit else pruner
