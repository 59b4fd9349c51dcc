"""Processing: requests in, arrays for the graphs out, without torch."""

from pathlib import Path

from vlmc.runtime.deployment import Deployment, OwnProcessor
from vlmc.runtime.processing.base import Batch, Processing, Request
from vlmc.runtime.text import Text

__all__ = ["Batch", "Processing", "Request", "find"]


def find(folder: Path, deployment: Deployment) -> Processing:
    """Return the processing that a deployment asks for; `folder` holds the tokenizer and, if one is used, the processor.

    Raises:
        InputError: one of these files is missing or cannot be read.
        EnvironmentLacks: transformers is needed and not installed.
    """
    if isinstance(deployment.processor, OwnProcessor):
        from vlmc.runtime.processing.own import Own

        return Own(folder, deployment, deployment.processor)
    from vlmc.runtime.processing.fixed import Fixed

    return Fixed(deployment, deployment.processor, Text(folder))
