"""Attacks that want code to run, or a connection to be made, or the user's text to be more than text."""

import json
from functools import partial
from pathlib import Path

from tests.fuzz import calls
from tests.fuzz.attacks.attempt import IMAGE, Attack, Attempt
from tests.fuzz.commands import Command
from tests.fuzz.folders import relist, write_signed
from tests.fuzz.judging import Kind

_PRUNE = ("prune", "dense", "--out", "p", "--calibration", "2", "--quiet")
_ASKS = ("[y/N]", "trust_remote_code")


def a_pickle_beside_safetensors(attempt: Attempt) -> None:
    """A folder with any .safetensors beside pytorch_model.bin: the pickle is not read."""
    attempt.dense()
    attempt.run(Command(call=partial(calls.pickle_weights, "dense")), wanted="done")
    for argv in (_PRUNE, ("eval", "dense", "--count", "2", "--quiet"), ("inspect", "dense")):
        attempt.run(*argv)


def code_named_by_the_config(attempt: Attempt) -> None:
    """config.json with auto_map: its code is not run, and nobody is asked whether to."""
    _send_code(attempt.dense() / "config.json", attempt, "AutoConfig", "AutoModelForImageTextToText")
    _run_all(attempt)


def code_of_an_unknown_type(attempt: Attempt) -> None:
    """The same with a model_type that transformers does not know."""
    path = attempt.dense() / "config.json"
    _send_code(path, attempt, "AutoConfig", "AutoModelForImageTextToText")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "other"}))
    _run_all(attempt)


def code_named_by_the_processor(attempt: Attempt) -> None:
    """processor_config.json with auto_map and a class that transformers does not know."""
    path = attempt.dense() / "processor_config.json"
    _send_code(path, attempt, "AutoProcessor", "AutoImageProcessor")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor_class": "Other"}))
    _run_all(attempt)


def code_named_by_the_tokenizer(attempt: Attempt) -> None:
    """tokenizer_config.json with auto_map and a class that transformers does not know."""
    path = attempt.dense() / "tokenizer_config.json"
    _send_code(path, attempt, "AutoTokenizer")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"tokenizer_class": "Other", "auto_map": {"AutoTokenizer": ["sent.Sent", None]}}))
    _run_all(attempt)


def code_in_an_artifact(attempt: Attempt) -> None:
    """An artifact whose own processor is replaced by code, listed anew by whoever made it."""
    model = attempt.artifact("idefics3")
    path = model / "processor_config.json"
    _send_code(path, attempt, "AutoProcessor", "AutoImageProcessor", into=model)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor_class": "Other"}))
    relist(model)
    for argv in (
        ("run", "model", "--image", IMAGE, "--prompt", "what ?"),
        ("eval", "model", "--count", "2"),
        ("inspect", "model"),
    ):
        _ask(attempt, *argv)


def an_origin_on_the_hub(attempt: Attempt) -> None:
    """An artifact whose manifest names origin.model: other/model: eval makes no connection for it."""
    model = attempt.artifact()
    path = model / "manifest.json"
    content = json.loads(path.read_text())
    content["origin"] = {"model": "other/model", "digest": "0" * 64}
    write_signed(path, content)
    attempt.run(Command(("eval", "model", "--count", "2", "--quiet"), online=True))


def control_tokens_in_a_prompt(attempt: Attempt) -> None:
    """The names of control tokens in a prompt are text, and take as many tokens as text does."""
    attempt.artifact()
    for token in ("</s>", "<s>", "<pad>"):
        compared = partial(calls.prompt_tokens, "model", IMAGE, (f"what {token}", "what ."))
        outcome = attempt.material.children.run(Command(call=compared), attempt.box.work)
        attempt.expect("AssertionError" not in outcome.stderr, Kind.CHANGED, "control tokens in a prompt")


def a_nested_image_mark(attempt: Attempt) -> None:
    """<im<image>age> is no image mark once the inner one is taken out."""
    for family in ("llava", "idefics3"):
        attempt.box.take(attempt.material.images()[0], IMAGE)
        attempt.box.take(attempt.material.model(family) / "model", family)
        for text in ("what <im<image>age> ?", "<im<image>age>", "<<image>image> what"):
            attempt.run(Command(call=partial(calls.answer, family, IMAGE, text)))
            attempt.run("run", family, "--image", IMAGE, "--prompt", text)


ATTACKS: tuple[Attack, ...] = (
    a_pickle_beside_safetensors,
    code_named_by_the_config,
    code_of_an_unknown_type,
    code_named_by_the_processor,
    code_named_by_the_tokenizer,
    code_in_an_artifact,
    an_origin_on_the_hub,
    control_tokens_in_a_prompt,
    a_nested_image_mark,
)


def _send_code(path: Path, attempt: Attempt, *autos: str, into: Path | None = None) -> None:
    """Put code beside a configuration that names it; it leaves a file outside when it is run."""
    content = json.loads(path.read_text())
    content["auto_map"] = dict.fromkeys(autos, "sent.Sent")
    path.write_text(json.dumps(content))
    code = f"open({str(attempt.box.outside / 'executed')!r}, 'w')\nclass Sent: pass\n"
    ((into or path.parent) / "sent.py").write_text(code)


def _run_all(attempt: Attempt) -> None:
    for argv in (_PRUNE, ("eval", "dense", "--count", "2", "--quiet"), ("inspect", "dense")):
        _ask(attempt, *argv)


def _ask(attempt: Attempt, *argv: str) -> None:
    outcome = attempt.run(Command(argv, stdin=b"y\ny\ny\n"))
    attempt.expect(not any(words in outcome.stdout for words in _ASKS), Kind.EXECUTED, "asks whether to run code")
    attempt.expect(not (attempt.box.outside / "executed").exists(), Kind.EXECUTED, f"{argv[0]} runs code that was sent")
