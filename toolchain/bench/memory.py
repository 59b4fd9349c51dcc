"""What a process of its own holds in memory once it has loaded graphs and answered; run as a module, without torch."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.model import Model

STATUS, MAPS = Path("/proc/self/status"), Path("/proc/self/smaps")
_REGION = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")


@dataclass(frozen=True)
class Memory:
    """Bytes: the most that were resident, mapped files included; those mapped from the graphs' files; those changed there.

    Mapped and unchanged bytes are the page cache's, which all processes share; changed ones are a copy of the process's own.
    """

    peak: int
    mapped: int
    copied: int


def memory_of(root: Path, graphs: Path, image: Path, question: str, tokens: int, threads: int) -> Memory | None:
    """Answer in a process of its own, and return what it held; None where the system does not say."""
    if not MAPS.is_file():
        return None
    given = [str(one) for one in (root, graphs, image, question, tokens, threads)]
    done = subprocess.run([sys.executable, "-m", __name__, *given], check=True, capture_output=True, text=True)
    return Memory(**json.loads(done.stdout))


def mapped(lines: Iterable[str], folder: Path) -> tuple[int, int]:
    """Return the resident bytes that are mapped from files in a folder, and the changed ones, from the lines of smaps.

    A page that was changed is anonymous there; one that its file was just written with is dirty only.
    """
    resident, changed, inside = 0, 0, False
    for line in lines:
        if found := _REGION.fullmatch(line.rstrip("\n")):
            inside = found[1].startswith(f"{folder}/")
        elif inside and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
        elif inside and line.startswith("Anonymous:"):
            changed += 1024 * int(line.split()[1])
    return resident, changed


def main(root: Path, graphs: Path, image: Path, question: str, tokens: int, threads: int) -> None:
    """Answer, then print what is held."""
    deployment = Deployment.read(graphs / DEPLOYMENT)
    with Model.from_graphs(root, deployment, graphs, threads=threads) as model:
        model.generate(image, question, max_new_tokens=tokens)
        held = mapped(MAPS.read_text().splitlines(), graphs.resolve())
    peak = next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps(asdict(Memory(peak, *held))))


if __name__ == "__main__":
    folder, files, picture, asked, *numbers = sys.argv[1:]
    main(Path(folder), Path(files), Path(picture), asked, int(numbers[0]), int(numbers[1]))
