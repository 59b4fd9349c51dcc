"""Attacks on time and memory: images, prompts, data and options that are small to send and large to work on."""

import os
from functools import partial

from tests.fuzz import calls
from tests.fuzz.attacks.attempt import IMAGE, Attack, Attempt
from tests.fuzz.commands import Command, Limits
from tests.fuzz.data_files import write_parquet
from tests.fuzz.image_files import png
from tests.fuzz.judging import Kind

_SOON = Limits(seconds=4)
"""For what is to be refused in a second; this machine may be busy with other things."""
_TRAIN = ("--steps", "1", "--batch", "2", "--pruned-questions", "0", "--validation-count", "2", "--quiet")


def a_thin_image(attempt: Attempt) -> None:
    """A 92-byte PNG of 100000 x 1 takes no gigabytes."""
    _ask_about(attempt, 100_000, 1)


def a_very_thin_image(attempt: Attempt) -> None:
    """A PNG of 1000000 x 1."""
    _ask_about(attempt, 1_000_000, 1)


def a_tall_image(attempt: Attempt) -> None:
    """A PNG of 1 x 1000000."""
    _ask_about(attempt, 1, 1_000_000)


def a_large_image(attempt: Attempt) -> None:
    """A PNG of 13000 x 13000 with transparency."""
    _ask_about(attempt, 13_000, 13_000, 6)


def a_long_prompt(attempt: Attempt) -> None:
    """A prompt of 100 MB is refused before it is made into tokens."""
    attempt.artifact()
    attempt.run(Command(call=partial(calls.answer_long, "model", IMAGE, "what ", 20_000_000)), wanted="refused")


def a_device_in_a_table(attempt: Attempt) -> None:
    """A row of a Parquet file with the path /dev/zero, bare and in the form of the hub."""
    attempt.dense()
    for image in ("/dev/zero", {"bytes": None, "path": "/dev/zero"}):
        write_parquet(attempt.box.work / "d.parquet", {"image": [image], "question": ["what ?"], "answer": ["one"]})
        _refuses_data(attempt, "d.parquet")


def a_pipe_in_a_table(attempt: Attempt) -> None:
    """A row of a Parquet file, and a line of JSON, with the path of a pipe."""
    attempt.dense()
    os.mkfifo(attempt.box.work / "pipe.png")
    write_parquet(attempt.box.work / "d.parquet", {"image": ["pipe.png"], "question": ["what ?"], "answer": ["one"]})
    (attempt.box.work / "d.jsonl").write_text('{"image": "pipe.png", "question": "what ?", "answer": "one"}\n')
    _refuses_data(attempt, "d.parquet")
    _refuses_data(attempt, "d.jsonl")


def data_that_never_ends(attempt: Attempt) -> None:
    """x.jsonl -> /dev/zero, data that is a pipe, and the same as an image folder's list."""
    attempt.dense()
    (attempt.box.work / "images").mkdir()
    for name in ("metadata.jsonl", "metadata.csv"):
        (attempt.box.work / "images" / name).symlink_to("/dev/zero")
        _refuses_data(attempt, "images")
        (attempt.box.work / "images" / name).unlink()
    for name in ("x.jsonl", "x.json", "x.csv", "x.parquet", "x.tar"):
        (attempt.box.work / name).symlink_to("/dev/zero")
        _refuses_data(attempt, name)
    os.mkfifo(attempt.box.work / "pipe.jsonl")
    _refuses_data(attempt, "pipe.jsonl")


def an_image_that_never_ends(attempt: Attempt) -> None:
    """An image that is a device, or a pipe."""
    attempt.artifact()
    (attempt.box.work / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(attempt.box.work / "pipe.png")
    for name in ("zero.png", "pipe.png"):
        attempt.run("run", "model", "--image", name, "--prompt", "what ?", wanted="refused", limits=_SOON)


def a_recipe_that_never_ends(attempt: Attempt) -> None:
    """A recipe that is a device, or a pipe."""
    attempt.dense()
    (attempt.box.work / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(attempt.box.work / "pipe.yaml")
    for name in ("zero.yaml", "pipe.yaml"):
        attempt.run("prune", "dense", "--out", "p", "--recipe", name, wanted="refused", limits=_SOON)


def a_pattern_of_many_names(attempt: Attempt) -> None:
    """good{1..30000000}.jsonl."""
    attempt.dense()
    _refuses_data(attempt, "good{1..30000000}.jsonl")
    _refuses_data(attempt, "good{000001..30000000}.tar")


def many_samples(attempt: Attempt) -> None:
    """--samples 99999999 of the demo, which has fewer."""
    attempt.artifact()
    attempt.run("repair", "model", "--out", "r", "--samples", "99999999", *_TRAIN, wanted="refused", limits=_SOON)


def a_bomb_of_yaml(attempt: Attempt) -> None:
    """A recipe of 287 bytes that says as much as 580 MB."""
    attempt.dense()
    lines = ["- &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"- &{after} [{','.join([f'*{name}'] * 9)}]" for name, after in zip("abcdefg", "bcdefgh", strict=True)]
    (attempt.box.work / "bomb.yaml").write_text("\n".join(["target:", *lines]))
    attempt.run("prune", "dense", "--out", "p", "--recipe", "bomb.yaml", wanted="refused", limits=_SOON)


def a_hub_id_without_a_network(attempt: Attempt) -> None:
    """Offline, --data owner/name is refused in three seconds, in one line."""
    attempt.dense()
    command = Command(("eval", "dense", "--data", "owner/name", "--count", "2"), online=True)
    outcome = attempt.material.children.run(command, attempt.box.work, Limits(seconds=60))
    attempt.last = (command, outcome)
    attempt.expect(outcome.seconds < 6, Kind.HUNG, f"{outcome.seconds:.0f} s to say that there is no network")
    attempt.expect(outcome.stderr.count("\n") == 1, Kind.MESSAGE, f"{outcome.stderr.count(chr(10))} lines without a network")


ATTACKS: tuple[Attack, ...] = (
    a_thin_image,
    a_very_thin_image,
    a_tall_image,
    a_large_image,
    a_long_prompt,
    a_device_in_a_table,
    a_pipe_in_a_table,
    data_that_never_ends,
    an_image_that_never_ends,
    a_recipe_that_never_ends,
    a_pattern_of_many_names,
    many_samples,
    a_bomb_of_yaml,
    a_hub_id_without_a_network,
)


def _ask_about(attempt: Attempt, width: int, height: int, color: int = 2) -> None:
    """Ask about an image of zeros, of both kinds of processor."""
    content = png(width, height, color)
    for family in ("llava", "idefics3"):
        attempt.box.take(attempt.material.model(family) / "model", family)
        (attempt.box.work / "odd.png").write_bytes(content)
        attempt.run("run", family, "--image", "odd.png", "--prompt", "what ?", "--max-new-tokens", "1")


def _refuses_data(attempt: Attempt, data: str) -> None:
    attempt.run("eval", "dense", "--data", data, "--count", "1", "--quiet", wanted="refused", limits=_SOON)
