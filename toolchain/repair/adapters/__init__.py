"""Adapters: put on a model, saved, merged into its weights, and the proof that a merge changed no answer."""

from vlmc.toolchain.repair.adapters.attaching import Adapters, attach
from vlmc.toolchain.repair.adapters.examples import choose_examples, in_batches
from vlmc.toolchain.repair.adapters.files import (
    FOLDER,
    SavedAdapter,
    attach_saved,
    digest_of_adapter,
    load_adapter,
    save_adapter,
)
from vlmc.toolchain.repair.adapters.mergeable import check_adapters, find_adapter
from vlmc.toolchain.repair.adapters.merging import Merging
from vlmc.toolchain.repair.adapters.proving import check_saved, prove_logits

__all__ = [
    "FOLDER",
    "Adapters",
    "Merging",
    "SavedAdapter",
    "attach",
    "attach_saved",
    "check_adapters",
    "check_saved",
    "choose_examples",
    "digest_of_adapter",
    "find_adapter",
    "in_batches",
    "load_adapter",
    "prove_logits",
    "save_adapter",
]
