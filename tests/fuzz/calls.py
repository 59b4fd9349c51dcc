"""The calls of vlmc's API that children are sent: plain functions of picklable arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Image = str | bytes


def answer(model: str, image: Image, prompt: str, options: Mapping[str, Any] | None = None) -> str:
    """Load an artifact's graphs and answer one question."""
    from vlmc.runtime import load

    with load(model) as loaded:
        found = loaded.generate(image, prompt, **(options or {}))
    return f"{found} {found.tokens} {found.prompt_tokens}"


def answer_after_close(model: str, image: Image) -> str:
    """Ask a model that was closed."""
    from vlmc.runtime import load

    loaded = load(model)
    loaded.close()
    return str(loaded.generate(image, "what ?"))


def answer_about_open_image(model: str, path: str) -> str:
    """Ask about an image that the caller has opened with Pillow and not read yet."""
    from PIL import Image as Pillow

    from vlmc.runtime import load

    with load(model) as loaded:
        return str(loaded.generate(Pillow.open(path), "what ?"))


def answer_long(model: str, image: Image, word: str, times: int) -> str:
    """Ask with a prompt of so many words."""
    return answer(model, image, word * times)


def prompt_tokens(model: str, image: Image, prompts: tuple[str, str]) -> str:
    """Fail where the first prompt takes no more tokens than the second."""
    from vlmc.runtime import load

    with load(model) as loaded:
        first, second = (loaded.generate(image, prompt).prompt_tokens for prompt in prompts)
    if first <= second:
        raise AssertionError(f"{prompts[0]!r} takes {first} tokens, as a control token does, not text")
    return f"{first} {second}"


def read_image(image: Image) -> str:
    """Open an image as the runtime does."""
    from vlmc.runtime.images import open_image

    return str(open_image(image).size)


def read_data(data: str, count: int | None = None) -> str:
    """Open a data set as eval does, and every sample's image."""
    from vlmc.toolchain.data import load

    samples = load(data, "test", count, check=True)
    return " ".join(f"{one.question!a} {one.answer!a} {one.load_image().size}" for one in samples)[:1000]


def pickle_weights(folder: str) -> str:
    """Put weights into `pytorch_model.bin`, beside a `.safetensors` of a name that transformers does not read."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(f"{folder}/model.safetensors"), f"{folder}/pytorch_model.bin")
    Path(folder, "model.safetensors").rename(Path(folder, "other.safetensors"))
    return folder


def make_pico(family: str, folder: str) -> str:
    """Write a family's pico model."""
    from tests import pico

    return str(pico.save(family, Path(folder)))


def make_data(folder: str) -> str:
    """Write the demo's first questions in every form that a data set may have; return the paths by form."""
    import json

    from tests.data.material import FORMS, six

    asked = six(Path(folder) / "asked")
    paths = {name: str(write(Path(folder) / name, asked).relative_to(folder)) for name, write in FORMS.items()}
    (Path(folder) / "forms.json").write_text(json.dumps(paths))
    return folder
