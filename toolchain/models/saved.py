"""A model on disk: find it by a built-in name, a folder or a hub id, and load it."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vlmc.runtime.artifact import Artifact, digest_of_files, sha256_file
from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain import builtin, families
from vlmc.toolchain.families.base import Family, Processor
from vlmc.toolchain.models.streaming.weights import StreamedModel


@dataclass(frozen=True)
class SavedModel:
    """A model on disk in transformers' layout; `name` is what the user gave."""

    name: str
    folder: Path

    @classmethod
    def find(cls, name: str) -> "SavedModel":
        """Resolve the name of a built-in model, a local folder or a hub id.

        Raises:
            InputError: the folder is missing, holds no model, or a file of it is damaged.
            EnvironmentLacks: a built-in model that is not fetched, or a hub id that is not cached while the hub cannot be
                reached.
        """
        named = builtin.models().get(name)
        if named is not None:
            return cls(name, named.locate())
        folder = Path(name)
        if not folder.exists() and _is_hub_id(name):
            folder = _download(name)
        if not folder.is_dir():
            raise InputError(f"no model at {name}: give a folder, a hub id or one of {', '.join(builtin.models())}")
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no model: it has no config.json")
        return cls(name, folder)

    @property
    def title(self) -> str:
        """What the model is called in artifacts: its built-in name, the hub id, or the last name of its folder's path."""
        is_path = Path(self.name) == self.folder or not _is_hub_id(self.name)
        return Path(os.path.abspath(self.folder)).name if is_path else self.name

    @property
    def origin(self) -> str:
        """The title of the dense model that this one was made from, or its own if it is dense."""
        return self.title if self.artifact is None else self.artifact.manifest.origin.model

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the model's files; for an artifact, the artifact's digest."""
        if self.artifact is not None:
            return self.artifact.digest
        paths = [path for path in sorted(self.folder.iterdir()) if path.suffix in {".json", ".safetensors", ".model"}]
        return digest_of_files({path.name: sha256_file(path) for path in paths})

    @cached_property
    def artifact(self) -> Artifact | None:
        """The artifact in this folder, if it is one."""
        return Artifact.open(self.folder) if (self.folder / "manifest.json").is_file() else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        try:
            return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))
        except ValueError as error:
            raise InputError(f"{self.folder / 'config.json'} is not valid JSON: {error}") from None

    @cached_property
    def family(self) -> Family:
        """The family that knows this model.

        Raises:
            InputError: vlmc has no family for it.
        """
        return families.find(self.config, where=self.name)

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype | None]:
        """The stored types of the parameters, by their names in the model; None for those that are not floats."""
        return self.stream(torch.device("cpu")).dtypes()

    def load(self) -> nn.Module:
        """Load the model in float32 on the CPU, in evaluation mode.

        Raises:
            InputError: the weights are damaged or do not fit the configuration.
        """
        from transformers import AutoModelForImageTextToText

        open_weights(self.folder)
        return self._checked(partial(AutoModelForImageTextToText.from_pretrained, self.folder, local_files_only=True))

    def stream(self, device: torch.device, precision: torch.dtype = torch.float32) -> StreamedModel:
        """Open the model without its weights, which are read when they are needed; it computes in `precision`.

        Raises:
            InputError: the weights are damaged or do not fit the configuration.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

        config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
        with torch.device("meta"):
            model_class: Any = type(AutoModelForImageTextToText.from_config(config))

        def build(marks: dict[str, Tensor]) -> nn.Module:
            return self._checked(partial(model_class.from_pretrained, None, config=config, state_dict=marks))

        streamed = StreamedModel(self.folder, build, device, precision)
        if (self.folder / "generation_config.json").is_file():
            streamed.module.generation_config = GenerationConfig.from_pretrained(self.folder, local_files_only=True)
        return streamed

    def _checked(self, read: Callable[..., Any]) -> nn.Module:
        """Read the model, and raise InputError if the weights do not fit it."""
        try:
            model, report = read(dtype=torch.float32, output_loading_info=True)
        except (SafetensorError, OSError, ValueError, RuntimeError, struct.error) as error:
            raise InputError(f"{self.folder} cannot be loaded: {_one_line(error)}") from None
        if report["missing_keys"]:
            raise InputError(f"{self.folder} lacks weights, the first is {sorted(report['missing_keys'])[0]}")
        loaded: nn.Module = model.eval()
        return loaded

    def load_processor(self) -> Processor:
        """Load the processor: the tokenizer and the image pipeline.

        Raises:
            InputError: it is missing or damaged.
            EnvironmentLacks: it needs a package that is not installed.
        """
        try:
            return self.family.load_processor(self.folder)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.folder} holds no usable processor: {_one_line(error)}") from None
        except ImportError as error:
            needs = _one_line(error).split(". ")[0]
            raise EnvironmentLacks(f"the processor in {self.folder} needs a package: {needs}; install it with pip") from None


def _is_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if "/" not in name:
        raise InputError(f"no model at {name}: give a folder, a hub id or one of {', '.join(builtin.models())}")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]))
    except (RepositoryNotFoundError, HFValidationError):
        raise InputError(f"no model called {name}, as a folder or on the hub") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        raise EnvironmentLacks(f"no folder {name}, and the hub cannot be reached: give a local folder") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
