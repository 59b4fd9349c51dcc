"""Every way vlmc fails, and the exit code of each.

    VlmcError
    ├── CheckFailed            1   a check does not hold: a pattern is broken, parity is lost
    ├── InputError             2   wrong usage or unusable input
    └── EnvironmentLacks       3   a package, provider or device is missing; the message says how to get it

A message is one line: what is wrong, where, and how to mend it.
"""


class VlmcError(Exception):
    """The base of all errors that vlmc raises on purpose; ``str()`` is one line for the user."""

    exit_code = 1


class CheckFailed(VlmcError):
    """A check that vlmc makes of its own work, or of an artifact, does not hold."""

    exit_code = 1


class InputError(VlmcError):
    """The user's input or usage is wrong."""

    exit_code = 2


class EnvironmentLacks(VlmcError):
    """Something that the step needs is not installed, or this machine does not have it."""

    exit_code = 3
