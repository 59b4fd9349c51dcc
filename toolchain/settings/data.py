"""Options of data."""

from typing import Annotated

from vlmc.toolchain.settings.base import RARE, Settings

DATA_OPTIONS = ("data", "validation", "calibration_data")
"""Options that name data sets."""


class DataSettings(Settings):
    """Which data set to read, and how."""

    panel = "Data"

    data: str = "demo"
    """Data set: demo, a .json, .jsonl, .csv, .parquet, .tar or .txt file, a folder, or a hub id; a=0.7,b=0.3 mixes two."""
    split: str | None = None
    """Split of the data set. [default: train; eval: test; sweep: validation for questions, train for calibration]"""
    columns: Annotated[str | None, RARE] = None
    """Columns with unusual names, such as image=img,question=q,answer=a."""
    caption_prompt: Annotated[str, RARE] = "Describe the image."
    """Question that captions are taken to answer."""
    max_bad: Annotated[str, RARE] = "1%"
    """Unreadable images to leave out, as a number or a share; with more of them the data is refused."""
    stream: Annotated[bool, RARE] = False
    """Stream the samples of a hub id, shuffled in a buffer, instead of downloading the whole data set."""


SAYS_WHICH_DATA = frozenset((*DataSettings.model_fields, "calibration_data", "validation"))
"""Options that say which data is read and how. A run is the same run where the data has the same digest, not these."""
