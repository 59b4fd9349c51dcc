"""Options of data."""

from typing import Annotated

from vlmc.toolchain.settings.base import RARE, Settings

DATA_OPTIONS = ("data", "validation", "calibration_data")
"""Options that name data sets."""


class DataSettings(Settings):
    """Which data, and how it is read."""

    panel = "Data"

    data: str = "demo"
    """Data: demo, a .json, .jsonl, .csv, .parquet or .tar file, a folder, or a hub id; a=0.7,b=0.3 mixes two."""
    split: str | None = None
    """Split of the data. [default: train; for eval, test; for sweep, validation to question and train to calibrate on]"""
    columns: Annotated[str | None, RARE] = None
    """Columns whose names are not the usual ones, such as image=img,question=q,answer=a."""
    caption_prompt: Annotated[str, RARE] = "Describe the image."
    """Question that a caption answers."""
    max_bad: Annotated[str, RARE] = "1%"
    """Images that may be unreadable and are left out, a number or a share; beyond it the data is refused."""
    stream: Annotated[bool, RARE] = False
    """Take the samples of a hub id from a stream, shuffled in a buffer, instead of downloading all of it."""


SAYS_WHICH_DATA = frozenset((*DataSettings.model_fields, "calibration_data", "validation"))
"""Options that say which data is read and how: what decides a result is the data itself, by its digest."""
