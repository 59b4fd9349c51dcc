"""lmms-eval (pip install lmms-eval) judges an artifact, on the demo's test questions or on any of its own tasks.

vlmc demo-data demo-data --split test --count 200
python examples/lmms_eval/judge.py artifact --limit 200
python examples/lmms_eval/judge.py artifact --model huggingface --limit 200
python examples/lmms_eval/judge.py artifact --tasks mmmu_val
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from vlmc.runtime import load

HERE = Path(__file__).parent
SHORT = 32  # tokens of an answer where a task does not say


class Vlmc(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A model of lmms-eval that answers through `vlmc.runtime`, with the artifact's ONNX graphs and without torch."""

    is_simple = True

    def __init__(self, artifact: str) -> None:
        super().__init__()
        self.model = load(artifact)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer each request's question about its pictures."""
        return [self._answer(*request.args) for request in requests]

    def _answer(self, question: str, options: dict[str, Any], visual: Any, place: int, task: str, split: str) -> str:
        images = [image.convert("RGB") for image in visual(self.task_dict[task][split][place])]
        stop = options.get("until") or ()
        answer = self.model.generate(
            images,
            question,
            max_new_tokens=options.get("max_new_tokens", SHORT),
            temperature=options.get("temperature") or 0.0,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        return str(answer.text)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: the graphs give tokens, and no task of pictures asks for this."""
        raise NotImplementedError("vlmc.runtime does not compute likelihoods")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse tasks of several rounds."""
        raise NotImplementedError("tasks of several rounds are not supported")


def main() -> None:
    """Evaluate, and print each task's metrics as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("--model", default="vlmc", help="vlmc, or a model class of lmms-eval, such as huggingface")
    parser.add_argument("--model-args", default="", help="what else that class takes, such as ,dtype=float32")
    parser.add_argument("--tasks", default="vlmc_demo", help="tasks of lmms-eval, separated by commas")
    parser.add_argument("--limit", type=int, help="questions of each task; all by default")
    options = parser.parse_args()
    ours = options.model == "vlmc"
    found = simple_evaluate(
        model=Vlmc(options.artifact) if ours else options.model,
        model_args="" if ours else f"pretrained={options.artifact},device=cpu{options.model_args}",
        tasks=options.tasks.split(","),
        batch_size=1,
        limit=options.limit,
        task_manager=TaskManager(include_path=str(HERE)),
    )
    print(json.dumps(found["results"], default=str))


if __name__ == "__main__":
    main()
