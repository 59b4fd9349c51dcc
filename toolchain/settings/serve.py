"""Options of serve."""

from typing import Literal

from pydantic import Field

from vlmc.toolchain.settings.base import Settings


class ServeSettings(Settings):
    """How to serve."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine alone, 0.0.0.0 from everywhere."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = Field(default=None, min_length=1, max_length=1000, pattern=r"^[!-~]+$")
    """Key that clients must send. [default: the environment's VLMC_API_KEY, or none]"""
    allow_remote: bool = False
    """Fetch images from http and https addresses, of the public internet alone."""
    max_batch: int = Field(default=8, ge=1, le=1024)
    """Questions that a model answers at once."""
    max_queue: int = Field(default=64, ge=1, le=100_000)
    """Questions that may wait for that, more are told to come again."""
    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    """Longest answer in tokens, and how long one is that asks for no length."""
    timeout: float = Field(default=120, gt=0, le=86_400)
    """Seconds that an answer may take, waiting included."""
    max_body: float = Field(default=20, gt=0, le=1000)
    """Megabytes that a request may have, images included."""
    image_cache: float = Field(default=64, ge=0, le=1_000_000)
    """Megabytes of features of images that each model keeps, so that a conversation's next turn finds them; 0 keeps none."""
    backend: Literal["onnx", "tensorrt"] = "onnx"
    """What runs the models: ONNX graphs, or TensorRT's engines, which need the GPU that they were built for."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of each model; 0 takes one for each core."""
