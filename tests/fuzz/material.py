"""Real material, made once for a run: pico models, artifacts with graphs, one with an adapter, data sets, images."""

import json
import shutil
from functools import partial
from pathlib import Path

from filelock import FileLock

from tests.fuzz import calls
from tests.fuzz.children import Children
from tests.fuzz.commands import Command, Limits

MODEL, ADAPTED, DENSE, DATA = "model", "adapted", "dense", "data"
"""The folders of a family: its artifact with graphs, the same with an adapter, and the dense one it was made from."""
FAMILIES = ("llava", "idefics3")
"""One whose images the runtime prepares itself, and one whose own processor does."""
_QUICK = ("--method", "magnitude", "--calibration", "1", "--quiet")
_PATIENT = Limits(seconds=300)


class Material:
    """The material in `folder`; a part is made when it is first asked for, and found there by later runs."""

    def __init__(self, folder: Path, children: Children) -> None:
        self.folder, self.children = folder, children
        folder.mkdir(parents=True, exist_ok=True)

    def model(self, family: str) -> Path:
        """Return the folder with the pico model of a family: `dense`, and `model`, pruned and with its graphs."""
        return self._made(
            family,
            Command(call=partial(calls.make_pico, family, DENSE)),
            Command(("prune", DENSE, "--out", MODEL, *_QUICK)),
            Command(("export", MODEL, "--quiet")),
        )

    def adapted(self) -> Path:
        """Return the folder with `dense`, and `adapted`, an artifact whose adapter waits to be merged."""
        training = ("--steps", "1", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2")
        return self._made(
            "llava-adapted",
            Command(call=partial(calls.make_pico, "llava", DENSE)),
            Command(("prune", DENSE, "--out", MODEL, *_QUICK)),
            Command(("repair", MODEL, "--out", ADAPTED, *training, "--quiet")),
        )

    def data(self) -> dict[str, Path]:
        """Return what `--data` names by the form of data."""
        folder = self._made("forms", Command(call=partial(calls.make_data, DATA))) / DATA
        return {form: folder / path for form, path in json.loads((folder / "forms.json").read_text()).items()}

    def images(self) -> list[Path]:
        """Return a few image files, PNG and JPEG."""
        return sorted((self.data()["image_folder"] / "pictures").iterdir())

    def _made(self, name: str, *commands: Command) -> Path:
        """Run the commands in a new folder; what one of them fails with is an error of the material, not of a case."""
        folder, making = self.folder / name, self.folder / f"making-{name}"
        with FileLock(self.folder / f"{name}.lock"):  # the processes of pytest-xdist share it
            if folder.is_dir():
                return folder
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            for command in commands:
                outcome = self.children.run(command, making, _PATIENT)
                if outcome.code:
                    raise RuntimeError(f"{command} gave {outcome.code}: {outcome.stderr}")
            return making.rename(folder)
