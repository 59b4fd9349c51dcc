"""What an inference server installs: load a vlmc artifact and answer questions about images, without torch.

>>> from vlmc.runtime import load
>>> with load("artifact") as model:                         # doctest: +SKIP
...     print(model.generate("scene.png", "how many digits are there?"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmc.runtime.answers import Answer, Timings
    from vlmc.runtime.artifact import Artifact
    from vlmc.runtime.batching import Batcher, Pending
    from vlmc.runtime.errors import Busy, Cancelled, CheckFailed, Closed, EnvironmentLacks, InputError, VlmcError
    from vlmc.runtime.messages import Message
    from vlmc.runtime.model import Model, load
    from vlmc.runtime.options import Options

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Artifact",
    "Batcher",
    "Busy",
    "Cancelled",
    "CheckFailed",
    "Closed",
    "EnvironmentLacks",
    "InputError",
    "Message",
    "Model",
    "Options",
    "Pending",
    "Timings",
    "VlmcError",
    "__version__",
    "load",
]

_HOMES = {
    "Answer": "vlmc.runtime.answers",
    "Artifact": "vlmc.runtime.artifact",
    "Batcher": "vlmc.runtime.batching",
    "Busy": "vlmc.runtime.errors",
    "Cancelled": "vlmc.runtime.errors",
    "CheckFailed": "vlmc.runtime.errors",
    "Closed": "vlmc.runtime.errors",
    "EnvironmentLacks": "vlmc.runtime.errors",
    "InputError": "vlmc.runtime.errors",
    "Message": "vlmc.runtime.messages",
    "Model": "vlmc.runtime.model",
    "Options": "vlmc.runtime.options",
    "Pending": "vlmc.runtime.batching",
    "Timings": "vlmc.runtime.answers",
    "VlmcError": "vlmc.runtime.errors",
    "load": "vlmc.runtime.model",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: the command line must start fast, and numpy alone takes its time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
