"""A model on disk: find it by a built-in name, a folder or a hub id, and load it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.runtime.artifact import Artifact, digest_of_files, sha256_file
from vlmc.runtime.errors import EnvironmentLacks, InputError, VlmcError, one_line, shortened
from vlmc.runtime.json_text import read_json
from vlmc.runtime.tensors import open_weights
from vlmc.toolchain import builtin, families
from vlmc.toolchain.families.base import Family, Processor
from vlmc.toolchain.models.streaming.weights import StreamedModel


@dataclass(frozen=True)
class SavedModel:
    """A model on disk in transformers' layout; `name` is what the user gave.

    `trust`: Python code that the model brings may be run, which can do anything that the user can.
    """

    name: str
    folder: Path
    trust: bool = False

    @classmethod
    def find(cls, name: str, *, trust: bool = False) -> "SavedModel":
        """Resolve the name of a built-in model, a local folder or a hub id; only one that a user names may be downloaded.

        Raises:
            InputError: the folder is missing, holds no model, or a file of it is damaged.
            EnvironmentLacks: a built-in model that is not fetched, or a hub id that is not cached while the hub cannot be
                reached.
        """
        named = builtin.models().get(name)
        if named is not None:
            return cls(name, named.locate())
        folder, known = Path(name), _exists(name)
        if not known and is_hub_id(name):
            folder, known = fetched(name, code=trust), True
        if not known or not folder.is_dir():
            raise InputError(
                f"no model at {shortened(name)}: give a folder, a hub id or one of {', '.join(builtin.models())}"
            )
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no model: it has no config.json")
        _check_files(folder)
        return cls(name, folder, trust)

    @property
    def title(self) -> str:
        """What the model is called in artifacts: its built-in name, the hub id, or the last name of its folder's path."""
        is_path = Path(self.name) == self.folder or not _may_be_hub_id(self.name)
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
        suffixes = {".json", ".safetensors", ".model", *([".py"] if self.trust else [])}
        paths = [path for path in sorted(self.folder.iterdir()) if path.suffix in suffixes and path.is_file()]
        return digest_of_files({path.name: sha256_file(path) for path in paths})

    @cached_property
    def artifact(self) -> Artifact | None:
        """The artifact in this folder, if it is one."""
        return Artifact.open(self.folder) if (self.folder / "manifest.json").is_file() else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        try:
            found = read_json(self.folder / "config.json")
            if isinstance(found, dict):
                return found
            raise ValueError("it is not an object")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / 'config.json'} is not valid JSON: {error}") from None

    @cached_property
    def family(self) -> Family:
        """The family that knows this model.

        Raises:
            InputError: vlmc has no family for it.
        """
        self._check_code()
        return families.find(self.config, where=self.name, folder=self.folder if self.trust else None)

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
        self._check_code()
        read = partial(AutoModelForImageTextToText.from_pretrained, self.folder, use_safetensors=True, **self._limits)
        return self._checked(read)

    def stream(self, device: torch.device, precision: torch.dtype = torch.float32) -> StreamedModel:
        """Open the model without its weights, which are read when they are needed; it computes in `precision`.

        Raises:
            InputError: the weights are damaged or do not fit the configuration.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText

        self._check_code()
        with _told(f"{self.folder / 'config.json'} cannot be used"):
            config = AutoConfig.from_pretrained(self.folder, **self._limits)
            with torch.device("meta"):
                model = AutoModelForImageTextToText.from_config(config, trust_remote_code=self.trust)
        model_class: Any = type(model)

        def build(marks: dict[str, Tensor]) -> nn.Module:
            read = partial(model_class.from_pretrained, None, config=config, state_dict=marks, use_safetensors=True)
            return self._checked(read)

        streamed = StreamedModel(self.folder, build, device, precision)
        if (self.folder / "generation_config.json").is_file():
            streamed.module.generation_config = self._generation_config()
        return streamed

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        with _told(f"{self.folder / 'generation_config.json'} cannot be used"):
            return GenerationConfig.from_pretrained(self.folder, **self._limits)

    @property
    def _limits(self) -> dict[str, bool]:
        """Never the network; code only if it is trusted, and without a question on the terminal."""
        return {"local_files_only": True, "trust_remote_code": self.trust}

    def _check_code(self) -> None:
        """Raise InputError where transformers would need the model's own code, which is not trusted."""
        if not self.trust and _needs_code(self.config):
            raise InputError(
                f"{self.folder} brings Python code of its own (auto_map in config.json), which vlmc does not run: read it, "
                "and add --trust-remote-code if you trust it"
            )

    def _checked(self, read: Callable[..., Any]) -> nn.Module:
        """Read the model, and raise InputError if the weights do not fit it."""
        with _told(f"{self.folder} cannot be loaded"):
            model, report = read(dtype=torch.float32, output_loading_info=True)
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
            with _told(f"{self.folder} holds no usable processor"):
                return self.family.load_processor(self.folder, trust=self.trust)
        except ImportError as error:
            needs = one_line(error).split(". ")[0]
            raise EnvironmentLacks(f"the processor in {self.folder} needs a package: {needs}; install it with pip") from None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what a library raises on damaged files, which may be anything, into one line."""
    try:
        yield
    except (VlmcError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what}: {one_line(error)}") from None


def _check_files(folder: Path) -> None:
    """Raise InputError for what a library would wait for, or could not open: pipes, devices, links to nothing."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is a pipe, a device or a link to nothing: remove it")


def _needs_code(config: Mapping[str, Any]) -> bool:
    """Whether a configuration names code of its own and transformers has none for it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return bool(config.get("auto_map")) and config.get("model_type") not in CONFIG_MAPPING


def _exists(name: str) -> bool:
    """Whether there is a path of that name.

    Raises:
        InputError: the name is not UTF-8, so that no artifact could hold it.
    """
    try:
        os.path.abspath(name).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {shortened(name)} is not UTF-8: rename the folder") from None
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        return False


def is_hub_id(name: str) -> bool:
    """Whether a name is that of a model on the hub, OWNER/NAME, rather than a path."""
    return name.count("/") == 1 and _may_be_hub_id(name)


def _may_be_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and "\\" not in name


def fetched(name: str, *, download: bool = True, code: bool = False) -> Path:
    """Return the folder of a model of the hub, in the hub's cache, downloaded if it may be; `code`: with its own code.

    Raises:
        InputError: there is no such model.
        EnvironmentLacks: it is not in the cache, and may not be downloaded or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", *(["*.py"] if code else [])]
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not download))
    except (RepositoryNotFoundError, HFValidationError):
        raise InputError(f"no model called {name}, as a folder or on the hub") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        raise EnvironmentLacks(f"no folder {name}, and the hub cannot be reached: give a local folder") from None
