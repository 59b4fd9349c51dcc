"""What accelerate launch and torchrun tell a process by its environment."""

import os

from vlmc.runtime.errors import InputError, shortened

NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")


def number_from(variable: str, default: int) -> int:
    """Return a number from the environment.

    Raises:
        InputError: the variable holds something else.
    """
    given = os.environ.get(variable)
    if given is None:
        return default
    if not given.strip().isdecimal() or len(given) > 9:
        raise InputError(f"{variable}={shortened(given, 40)} in the environment is not a number: unset it")
    return int(given)


def check_environment() -> None:
    """Raise InputError where a variable that a launcher sets is not a number, before a library reads it."""
    for variable in NUMBERS:
        number_from(variable, 0)
