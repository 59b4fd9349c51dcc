"""Train the vision encoder and the connector of `smol`: `python -m vlmc.toolchain.smol.train --work DIR --out DIR`.

It takes hours, keeps checkpoints in the folder `--work`, and goes on from the last one when it is started again. The
language model is fetched as `vlmc fetch smol` does it, and stays as it is. `--start` goes on from trained weights.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from vlmc.runtime.errors import EnvironmentLacks, InputError
from vlmc.toolchain.smol.fetching import language_model
from vlmc.toolchain.smol.joining import blank
from vlmc.toolchain.smol.language import read_tokenizer
from vlmc.toolchain.smol.learning import Plan, Training
from vlmc.toolchain.smol.publishing import Run, begin, publish
from vlmc.toolchain.smol.watching import Watch, resume


def make(work: Path, out: Path, run: Run) -> None:
    """Train from the last checkpoint in `work`, if there is one, to the end; write the trained part to `out`.

    Raises:
        InputError: `out` exists, there are no weights to go on from, or `work` holds a training with another seed.
        EnvironmentLacks: the language model is not here and cannot be fetched.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder")
    if run.more_vision and run.start is None:
        raise InputError("--more-vision goes on from weights: name them by --start")
    gguf_path = language_model()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(run.threads)
    torch.manual_seed(run.seed)
    model, tokenizer = blank(gguf_path), read_tokenizer(gguf_path)
    training = Training(model, tokenizer, run.plan, run.seed)
    if run.start is not None:
        begin(training, run.start, run.more_vision)
    watch = Watch(work, resume(training, work))
    training.run(watch)
    publish(training, gguf_path, replace(run, hours=watch.seconds() / 3600), out)


def main() -> None:
    """Read the command line and train."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m vlmc.toolchain.smol.train", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are kept; go on by naming it again")
    parser.add_argument("--out", type=Path, required=True, help="the folder of trained weights to write; must not exist")
    parser.add_argument("--start", type=Path, help="a folder of trained weights to go on from, such as the shipped ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="the shipped weights were trained with the default")
    steps = parser.add_argument_group("steps")
    steps.add_argument("--vision-steps", type=int, default=plan.vision_steps, help="of the vision encoder alone")
    steps.add_argument("--more-vision", type=int, default=0, help="of the encoder alone, before it goes on from --start")
    steps.add_argument("--alignment-steps", type=int, default=plan.alignment_steps, help="with the frozen language model")
    steps.add_argument("--joint-steps", type=int, default=plan.joint_steps, help="in which the language model learns too")
    parser.add_argument("--count", type=int, default=2_000, help="how many questions of each split to measure it on")
    chosen = parser.parse_args()
    plan = replace(plan, vision_steps=chosen.vision_steps, alignment_steps=chosen.alignment_steps)
    plan = replace(plan, joint_steps=chosen.joint_steps)
    run = Run(plan, chosen.seed, chosen.threads, chosen.count, chosen.start, chosen.more_vision)
    try:
        make(chosen.work, chosen.out, run)
    except (EnvironmentLacks, InputError) as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
