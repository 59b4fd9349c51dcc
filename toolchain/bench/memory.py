"""The most memory that a process of its own holds while it loads graphs and answers once; run as a module, without torch."""

import subprocess
import sys
from pathlib import Path

from vlmc.runtime.deployment import DEPLOYMENT, Deployment
from vlmc.runtime.model import Model

STATUS = Path("/proc/self/status")


def peak_bytes(root: Path, graphs: Path, image: Path, question: str, tokens: int, threads: int) -> int | None:
    """Return the bytes, mapped files included; None where the system does not say."""
    if not STATUS.is_file():
        return None
    given = [str(one) for one in (root, graphs, image, question, tokens, threads)]
    done = subprocess.run([sys.executable, "-m", __name__, *given], check=True, capture_output=True, text=True)
    return int(done.stdout)


def main(root: Path, graphs: Path, image: Path, question: str, tokens: int, threads: int) -> None:
    """Answer, then print the peak."""
    deployment = Deployment.read(graphs / DEPLOYMENT)
    with Model.from_graphs(root, deployment, graphs, threads=threads) as model:
        model.generate(image, question, max_new_tokens=tokens)
    print(next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    folder, files, picture, asked, *numbers = sys.argv[1:]
    main(Path(folder), Path(files), Path(picture), asked, int(numbers[0]), int(numbers[1]))
