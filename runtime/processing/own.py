"""A family's own processor, by transformers' PIL backend. No other module of the runtime may load transformers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from vlmc.runtime.controls import without
from vlmc.runtime.deployment import AnyRes, Deployment, OwnProcessor, Patches, Tiles
from vlmc.runtime.errors import EnvironmentLacks, InputError, VlmcError, one_line
from vlmc.runtime.processing.any_resolution import tile_inputs
from vlmc.runtime.processing.base import Array, Batch, Processing, Request
from vlmc.runtime.processing.blocks import blocks
from vlmc.runtime.processing.patches import patch_inputs
from vlmc.runtime.processing.positions import m_rope, sequential
from vlmc.runtime.text import check_added, check_template

_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}
_ANY_TEXT = "what \u2042 is \U0001f50e 7?"  # with characters that are in few vocabularies
_QUESTION = "qformer_"  # how names of arrays begin that have a row for each request, and which a vision encoder reads

_CODE = (
    "the processor in {folder} brings Python code of its own (auto_map in one of its configurations), which vlmc does not "
    "run: read it, and add --trust-remote-code if you trust it"
)


class Own(Processing):
    """What the processor returns, in the form that the graphs declare.

    Raises:
        InputError: the folder has no usable processor.
        EnvironmentLacks: transformers is not installed, or lacks a package.
    """

    def __init__(self, folder: Path, deployment: Deployment, processor: OwnProcessor) -> None:
        layout = deployment.vision
        self._nested = processor.nested or (isinstance(layout, Tiles) and layout.padded)
        self._deployment, self._lock = deployment, Lock()  # its tokenizer changes state while it pads
        try:
            self._processor = load_processor(folder, processor)
        except (VlmcError, MemoryError):
            raise
        except ImportError as error:
            needs = one_line(error).split(". ")[0]
            raise EnvironmentLacks(
                f"the processor in {folder} needs a package: {needs}; pip install -U transformers"
            ) from None
        except Exception as error:  # what a library raises on a damaged file is not known
            raise InputError(f"{folder} has no usable processor: {one_line(error)}") from None
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token

    def __call__(self, requests: Sequence[Request]) -> Batch:
        made = self._process(requests)
        ids_BS, mask_BS = made["input_ids"], made["attention_mask"]
        shown = [bool(request.images) for request in requests]
        return Batch(ids_BS, mask_BS, self._positions(made), self._vision(made, shown), blocks(ids_BS, self._deployment))

    def _process(self, requests: Sequence[Request]) -> dict[str, Array]:
        prompt = self._deployment.prompt
        front = prompt.place == "front"  # the processor itself puts the image tokens before the text
        texts = [without(prompt.slot, request.text) if front else request.text for request in requests]
        nested = [list(request.images) for request in requests]
        flat = [image for images in nested for image in images]
        images = nested if self._nested else flat
        try:
            with self._lock:
                made = self._processor(
                    images=images if flat else None, text=texts, padding=True, padding_side="right", return_tensors="np"
                )
        except (MemoryError, VlmcError):
            raise
        except Exception as error:
            raise InputError(f"the model's processor rejects the request: {one_line(error)}") from None
        return {name: np.asarray(array) for name, array in made.items()}

    def _positions(self, made: Mapping[str, Array]) -> Array:
        mask_BS, layout = made["attention_mask"], self._deployment.vision
        if self._deployment.positions == "sequential":
            return sequential(mask_BS, self._deployment.first_position)
        grids_G3 = made.get("image_grid_thw", np.zeros((0, 3), np.int64))
        merge = layout.merge if isinstance(layout, Patches) else 1
        return m_rope(made["input_ids"] == self._deployment.image_token_id, mask_BS, grids_G3, merge)

    def _vision(self, made: Mapping[str, Array], shown: Sequence[bool]) -> dict[str, Array]:
        """Return the vision encoder's inputs; `shown` says which requests have an image."""
        layout = self._deployment.vision
        arrays = {name: array for name, array in made.items() if name not in _TEXT}
        if "pixel_values" not in arrays:
            return {}
        if isinstance(layout, Patches):
            return arrays | patch_inputs(made["image_grid_thw"], layout)
        if isinstance(layout, AnyRes):
            return tile_inputs(arrays, layout)
        if layout.padded:
            real = arrays["pixel_attention_mask"].any((-2, -1))
            return {name: array[real] for name, array in arrays.items()}
        return {name: array[np.array(shown)] if name.startswith(_QUESTION) else array for name, array in arrays.items()}


def load_processor(folder: Path, processor: OwnProcessor, *, trust: bool = False) -> Any:
    """Load a model's processor, for images by Pillow and numpy; `trust`: Python code that it brings may be run.

    Raises:
        Exception: it is missing or damaged; which one, its libraries choose.
        EnvironmentLacks: transformers is not installed.
        ImportError: a package that the processor needs is not installed.
    """
    try:
        with _unadvised():
            import transformers

            kind = getattr(transformers, processor.name or "AutoProcessor")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise EnvironmentLacks("this model's own processor needs transformers: pip install 'vlmc[processors]'") from None
    kind = without_videos(kind) if processor.images_only else kind
    if (folder / "tokenizer.json").is_file():
        check_added(folder / "tokenizer.json")
    try:
        loaded = kind.from_pretrained(folder, local_files_only=True, backend="pil", trust_remote_code=trust)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise InputError(_CODE.format(folder=folder)) from None
        raise
    if hasattr(loaded.tokenizer, "backend_tokenizer"):  # not where the tokenizer is Python
        check_template(loaded.tokenizer.backend_tokenizer)
    loaded.tokenizer(_ANY_TEXT)  # a damaged vocabulary shows only when a word is not in it
    template = folder / "chat_template.jinja"
    if loaded.chat_template is None and template.is_file():  # Blip2Processor saves its template and forgets it
        loaded.chat_template = template.read_text(encoding="utf-8")
    return loaded


def without_videos(kind: Any) -> Any:
    """Return a processor class without its video processor, which needs torchvision.

    transformers reads a processor's parts and settings from the arguments of its constructor: this one takes no video
    processor.
    """

    class ForImages(kind):  # type: ignore[misc]
        def __init__(
            self, image_processor: Any, tokenizer: Any, image_seq_length: int | None = None, chat_template: Any = None
        ) -> None:
            settings = {} if image_seq_length is None else {"image_seq_length": image_seq_length}
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **settings)

        def __reduce__(self) -> tuple[Any, ...]:  # a class inside a function cannot be found by its name
            return _unpickled, (kind,), vars(self)

    ForImages.__name__ = kind.__name__  # it is what a saved processor is called
    return ForImages


@contextmanager
def _unadvised() -> Iterator[None]:
    """Keep transformers from warning, while it is imported, that models need PyTorch."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _unpickled(kind: Any) -> Any:
    made = without_videos(kind)
    return made.__new__(made)
