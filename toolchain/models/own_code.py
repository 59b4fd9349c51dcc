"""What a model's own code raises on its inputs, as one line: a configuration or a processor that was edited, most often."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vlmc.runtime.errors import InputError, one_line

_NO_MEMORY = "allocate memory"  # how PyTorch says on a CPU that there is none


@contextmanager
def own_code() -> Iterator[None]:
    """Turn what a model raises into one line; a lack of memory stays what it is.

    Raises:
        InputError: the model cannot be run on what its processor made.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        if _NO_MEMORY in str(error):
            raise
        what = f"the model cannot be run ({type(error).__name__}: {one_line(error)})"
        raise InputError(f"{what}: its configuration, processor and weights do not agree") from error
