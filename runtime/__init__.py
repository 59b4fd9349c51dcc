"""What an inference server installs: load a vlmc artifact and answer questions about images, without torch.

>>> from vlmc.runtime import load
>>> with load("artifact") as model:                         # doctest: +SKIP
...     print(model.generate("scene.png", "how many digits are there?"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmc.runtime.artifact import Artifact
    from vlmc.runtime.errors import CheckFailed, EnvironmentLacks, InputError, VlmcError
    from vlmc.runtime.model import Answer, Model, load

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Artifact",
    "CheckFailed",
    "EnvironmentLacks",
    "InputError",
    "Model",
    "VlmcError",
    "__version__",
    "load",
]

_HOMES = {
    "Answer": "vlmc.runtime.model",
    "Artifact": "vlmc.runtime.artifact",
    "CheckFailed": "vlmc.runtime.errors",
    "EnvironmentLacks": "vlmc.runtime.errors",
    "InputError": "vlmc.runtime.errors",
    "Model": "vlmc.runtime.model",
    "VlmcError": "vlmc.runtime.errors",
    "load": "vlmc.runtime.model",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: the command line must start fast, and numpy alone takes its time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
