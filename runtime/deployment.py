"""Deployment: `deployment.json`, which export writes beside the graphs: all that the runtime needs to feed them."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmc.runtime.errors import InputError

DEPLOYMENT: Final = "deployment.json"
VERSION: Final = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImagePipeline(_Strict):
    """The steps of transformers' PIL image processors, in their order; None skips a step.

    `resize` is (height, width), or (shortest edge,); `crop` is (height, width) of the centre; `resample` is Pillow's
    number of a filter; pixel values are multiplied by `rescale`, then normalised by `mean` and `std` per channel.
    """

    resize: tuple[int, int] | tuple[int] | None = None
    resample: int = 3
    crop: tuple[int, int] | None = None
    rescale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class FixedProcessor(_Strict):
    """Every image becomes one array of one size and `image_tokens` tokens: numpy, Pillow and tokenizers are enough."""

    kind: Literal["fixed"] = "fixed"
    image: ImagePipeline
    image_tokens: int = Field(gt=0)


class OwnProcessor(_Strict):
    """The family's own processor, run by transformers without torch (`pip install 'vlmc[processors]'`).

    `name` is the processor's class in transformers; None: the one that the artifact names. `images_only` loads it without
    its video processor, which needs torchvision.
    """

    kind: Literal["transformers"] = "transformers"
    name: str | None = None
    images_only: bool = False


class Tiles(_Strict):
    """The vision encoder reads images, or tiles of them, of one size: (tiles, channels, height, width).

    `padded`: the processor returns (requests, tiles, ...), padded with tiles whose mask is zero; these are dropped.
    """

    kind: Literal["tiles"] = "tiles"
    padded: bool = False


class Patches(_Strict):
    """The vision encoder reads the patches of images in their own size, one after the other: (patches, values).

    `merge` x `merge` patches become one token. `window` is the side of an attention window in merged patches; None: every
    layer attends over the whole image.
    """

    kind: Literal["patches"] = "patches"
    merge: int = Field(gt=0)
    window: int | None = Field(default=None, gt=0)


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
    `prefix_mask`: attention over the prompt is bidirectional. `deepstack`: how many of the decoder's first layers get image
    features of their own. `cache`: `concatenated`, the decoder returns its past with the new tokens appended. `max_images`
    is how many images one request may have, `max_positions` how many tokens in all; None: no limit.
    """

    version: Literal[1] = VERSION
    family: str
    graphs: Graphs = Graphs()
    processor: Annotated[FixedProcessor | OwnProcessor, Field(discriminator="kind")]
    vision: Annotated[Tiles | Patches, Field(discriminator="kind")] = Tiles()
    prompt: Prompt
    image_token_id: int
    max_images: int | None = Field(default=None, gt=0)
    decoder: Literal["causal", "encoder-decoder"] = "causal"
    positions: Literal["sequential", "m-rope"] = "sequential"
    prefix_mask: bool = False
    deepstack: int = Field(default=0, ge=0)
    cache: Literal["concatenated"] = "concatenated"
    stop_ids: tuple[int, ...]
    max_positions: int | None = Field(default=None, gt=0)

    @classmethod
    def read(cls, path: Path) -> "Deployment":
        """Read the file.

        Raises:
            InputError: it cannot be read, or a newer vlmc wrote it.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.get("version")
            if isinstance(version, int) and version > VERSION:
                raise InputError(f"{path} has version {version}, this vlmc reads {VERSION}: upgrade vlmc")
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "top level"
            raise InputError(f"{path} is not valid at {where}: {first['msg']}; upgrade vlmc, or export again") from None
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be read: {error}; export again") from None

    def to_json(self) -> str:
        """Return the text of the file; the same for equal content."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
