"""Deployment: `deployment.json`, which export writes beside the graphs: all that the runtime needs to feed them."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlmc.runtime.errors import InputError
from vlmc.runtime.json_text import read_json

DEPLOYMENT: Final = "deployment.json"
VERSION: Final = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Side = Annotated[int, Field(gt=0, le=8192)]
"""A side of an image in pixels, after resizing."""
Positive = Annotated[float, Field(gt=0)]
Id = Annotated[int, Field(ge=0, lt=1 << 31)]
"""The id of a token."""
CacheLayout = Literal["concatenated", "in-place"]
"""How a decoder's graph adds tokens to its cache."""


class ImagePipeline(_Strict):
    """The steps of transformers' PIL image processors, in their order; None skips a step.

    `resize` is (height, width), or (shortest edge,); `crop` is (height, width) of the centre; `resample` is Pillow's
    number of a filter; pixel values are multiplied by `rescale`, then normalised by `mean` and `std` per channel.
    """

    resize: tuple[Side, Side] | tuple[Side] | None = None
    resample: int = Field(default=3, ge=0, le=5)
    crop: tuple[Side, Side] | None = None
    rescale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None


class FixedProcessor(_Strict):
    """Every image becomes one array of one size and `image_tokens` tokens: numpy, Pillow and tokenizers are enough."""

    kind: Literal["fixed"] = "fixed"
    image: ImagePipeline
    image_tokens: int = Field(gt=0, le=1_000_000)


class OwnProcessor(_Strict):
    """The family's own processor, run by transformers without torch (`pip install 'vlmc[processors]'`).

    `name` is the processor's class in transformers; None: the one that the artifact names. `images_only` loads it without
    its video processor, which needs torchvision. `nested`: it takes a list of images for each text, not one list for all.
    """

    kind: Literal["transformers"] = "transformers"
    name: str | None = None
    images_only: bool = False
    nested: bool = False


class Tiles(_Strict):
    """The vision encoder reads images, or tiles of them, of one size: (tiles, channels, height, width).

    `padded`: the processor returns (requests, tiles, ...), padded with tiles whose mask is zero; these are dropped.
    """

    kind: Literal["tiles"] = "tiles"
    padded: bool = False


class Patches(_Strict):
    """The vision encoder reads the patches of images in their own size, one after the other: (patches, values).

    `merge` x `merge` patches become one token. `window` is the side of an attention window in merged patches; None: every
    layer attends over the whole image. `grid` is the side of the learned grid of positions, which is resampled for an image
    of another size; None: there is no such grid.
    """

    kind: Literal["patches"] = "patches"
    merge: int = Field(gt=0, le=64)
    window: int | None = Field(default=None, gt=0, le=8192)
    grid: int | None = Field(default=None, gt=0, le=8192)


class AnyRes(_Strict):
    """The vision encoder reads a whole image and its tiles, and its features are arranged as the image was (LLaVA-NeXT).

    `canvases` are the sizes (height, width) of which the best one for an image is cut into tiles of side `tile`; a tile has
    `side` x `side` features. Features of the canvas outside the image are dropped, and each row ends with a learned one.
    """

    kind: Literal["any-resolution"] = "any-resolution"
    tile: Side
    side: int = Field(gt=0, le=8192)
    canvases: tuple[tuple[Side, Side], ...] = Field(min_length=1)


class Prompt(_Strict):
    """How a question becomes the model's input.

    `slot` stands for an image in a text. `question` is the model's input for one question: `{images}` for the images,
    each written as `image`, and `{prompt}` for the question; None: the user writes the whole input. `place` says where an
    image's tokens go: `inline`, in place of its slot, or `front`, before the whole text (BLIP-2). `chat_template` is the
    model's own chat template (Jinja), None where it has none.
    """

    slot: str
    image: str
    question: str | None
    place: Literal["inline", "front"] = "inline"
    chat_template: str | None = None


class Graphs(_Strict):
    """The file of each role, without its ending; only encoder-decoder models have an encoder."""

    vision: str = "vision_encoder"
    embedding: str = "embed_tokens"
    decoder: str = "decoder_model_merged"
    encoder: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All files, in the order in which they run."""
        return tuple(name for name in (self.vision, self.embedding, self.encoder, self.decoder) if name is not None)


class Deployment(_Strict):
    """`deployment.json`; see docs/format.md.

    `positions`: `sequential`, one number per token, or `m-rope`, three (time, height, width; arXiv 2409.12191).
    `first_position` is the position of a request's first token. `start_id` is the token that an encoder-decoder's answers
    start from. `prefix_mask` says what attention sees in both directions: the whole `prompt`, or the tokens of each of its
    `images`; false: nothing. `deepstack`: how many of the decoder's first layers get image features of their own. `cache`:
    `concatenated`, the decoder returns its past with the new tokens appended; `in-place`, it writes them into buffers, each
    row's from the column that `write_indices` says. `max_images` is how many images one request
    may have, `max_positions` how many tokens in all; None: no limit.
    """

    version: Literal[1] = VERSION
    family: str
    graphs: Graphs = Graphs()
    processor: Annotated[FixedProcessor | OwnProcessor, Field(discriminator="kind")]
    vision: Annotated[Tiles | Patches | AnyRes, Field(discriminator="kind")] = Tiles()
    prompt: Prompt
    image_token_id: Id
    max_images: int | None = Field(default=None, gt=0, lt=1 << 31)
    decoder: Literal["causal", "encoder-decoder"] = "causal"
    start_id: Id | None = None
    positions: Literal["sequential", "m-rope"] = "sequential"
    first_position: int = Field(default=0, ge=0, lt=1 << 31)
    prefix_mask: Literal[False, "prompt", "images"] = False
    deepstack: int = Field(default=0, ge=0)
    cache: CacheLayout = "concatenated"
    stop_ids: tuple[Id, ...]
    max_positions: int | None = Field(default=None, gt=0, lt=1 << 31)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        several = self.decoder == "encoder-decoder"
        if several != (self.graphs.encoder is not None) or several != (self.start_id is not None):
            raise ValueError("an encoder-decoder has a graph for its encoder and a start_id, and no other model has")
        return self

    @classmethod
    def read(cls, path: Path) -> "Deployment":
        """Read the file.

        Raises:
            InputError: it cannot be read, or a newer vlmc wrote it.
        """
        try:
            content = read_json(path)
            version = content.get("version")
            if isinstance(version, int) and version > VERSION:
                raise InputError(f"{path} has version {version}, this vlmc reads {VERSION}: upgrade vlmc")
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "top level"
            raise InputError(f"{path} is not valid at {where}: {first['msg']}; upgrade vlmc, or export again") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be read: {error}; export again") from None

    def to_json(self) -> str:
        """Return the text of the file; the same for equal content."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
