"""Attacks on the one clean line: broken configuration, odd text, options out of range, an output that is gone."""

import io
import json
from functools import partial

from PIL import Image

from tests.fuzz import calls
from tests.fuzz.attacks.attempt import IMAGE, QUESTION, Attack, Attempt
from tests.fuzz.commands import Command
from tests.fuzz.folders import relist
from tests.fuzz.graph_files import retype_input
from tests.fuzz.image_files import ORIENTATION, exif, jpeg
from tests.fuzz.judging import Kind
from tests.fuzz.tensor_files import join, read_header, values_of

_DEEP = "[" * 100_000 + "]" * 100_000
_BROKEN = (
    "{",
    "[]",
    '"text"',
    "null",
    "1",
    "\ufeff{}",
    '{"a": \ud800}',
    _DEEP,
    '{"clean_up_tokenization_spaces": {"a": []}}',
)
_RUN = ("run", "model", "--image", IMAGE, "--prompt", QUESTION, "--max-new-tokens", "1")
_TRAIN = ("--steps", "1", "--batch", "2", "--samples", "4", "--pruned-questions", "0", "--validation-count", "2", "--quiet")
_BROKEN_PIPE = {0, 141, -13}


def a_broken_tokenizer_config(attempt: Attempt) -> None:
    """Any broken tokenizer_config.json, in an artifact that was listed anew and in a dense model."""
    path = attempt.artifact() / "tokenizer_config.json"
    for text in _BROKEN:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        relist(path.parent)
        attempt.run(*_RUN)
        (attempt.box.work / "dense" / path.name).write_bytes(path.read_bytes())
        attempt.run("eval", "dense", "--count", "2", "--quiet")


def a_broken_report(attempt: Attempt) -> None:
    """Any broken reports/eval.json."""
    path = attempt.artifact() / "reports" / "eval.json"
    path.parent.mkdir(exist_ok=True)
    for text in (*_BROKEN, '{"models": 1}', '{"models": {"dense": {}}}'):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        relist(path.parent.parent)
        attempt.run("inspect", "model")


def deep_json(attempt: Attempt) -> None:
    """JSON of 100,000 brackets wherever JSON is read."""
    model = attempt.artifact()
    for name in ("manifest.json", "config.json", "processor_config.json", "onnx/deployment.json", "generation_config.json"):
        before, manifest = (model / name).read_bytes(), (model / "manifest.json").read_bytes()
        (model / name).write_text(_DEEP)
        if name != "manifest.json":
            relist(model)
        for argv in (_RUN, ("inspect", "model"), ("eval", "model", "--count", "2", "--quiet")):
            attempt.run(*argv)
        (model / name).write_bytes(before)
        (model / "manifest.json").write_bytes(manifest)
    (attempt.box.work / "d.jsonl").write_text(_DEEP + "\n")
    attempt.run("eval", "dense", "--data", "d.jsonl", "--count", "1")


def a_mistyped_header(attempt: Attempt) -> None:
    """safetensors headers of other types."""
    path = attempt.artifact() / "model.safetensors"
    content = path.read_bytes()
    header = read_header(content)
    assert header is not None
    name = next(name for name in header if name != "__metadata__")
    entries = (
        {"dtype": 1},
        {"shape": "x"},
        {"data_offsets": [0]},
        {"data_offsets": [-1, 5]},
        {"shape": [2**62, 4]},
        {"shape": None},
    )
    for entry in entries:
        path.write_bytes(join(header | {name: header[name] | entry}, values_of(content)))
        relist(path.parent)
        for argv in (("verify-sparsity", "model"), ("inspect", "model"), ("eval", "model", "--count", "2", "--quiet")):
            attempt.run(*argv)


def long_names(attempt: Attempt) -> None:
    """Names over 255 bytes: of a model, an image, data, an output, a recipe."""
    attempt.artifact()
    name = "x" * 300
    for argv in (
        ("inspect", name),
        ("run", "model", "--image", f"{name}.png", "--prompt", "what ?"),
        ("eval", "dense", "--data", f"{name}.jsonl", "--count", "1"),
        ("prune", "dense", "--calibration", "2", "--out", name),
        ("prune", "dense", "--calibration", "2", "--out", "x" * 250),
        ("prune", "dense", "--out", "p", "--recipe", f"{name}.yaml"),
        ("demo-data", name, "--count", "2"),
        ("demo-data", "x" * 250, "--count", "2"),
    ):
        attempt.run(*argv)


def text_that_is_no_utf8(attempt: Attempt) -> None:
    """Lone surrogates, as bytes that are no UTF-8 come from a shell, in a prompt and in paths."""
    attempt.artifact()
    for odd in ("\udcff", "\ud800"):
        attempt.run("run", "model", "--image", IMAGE, "--prompt", f"what {odd}")
        attempt.run(Command(call=partial(calls.answer, "model", IMAGE, f"what {odd}")))
        for argv in (
            ("inspect", odd),
            ("eval", "dense", "--data", f"{odd}.jsonl"),
            ("run", "model", "--image", odd, "--prompt", "x"),
        ):
            attempt.run(*argv)
    (attempt.box.work / "d.jsonl").write_text('{"image": "p.png", "question": "\\ud800 ?", "answer": "\\udfff"}\n' * 4)
    attempt.run("eval", "dense", "--data", "d.jsonl", "--count", "2", "--quiet")


def odd_exif(attempt: Attempt) -> None:
    """JPEG with odd EXIF data."""
    attempt.artifact()
    turned = (ORIENTATION, 3, 1, 6)
    odd = [
        (tag, kind, count, 6) for tag in (0x010E, 0x8769, 0x9286) for kind in (0, 2, 5, 7, 12) for count in (0, 1, 9, 2**31)
    ]
    files = [b"", b"II", exif((ORIENTATION, 2, 1, 6)), exif((ORIENTATION, 5, 1, 0)), *(exif(turned, entry) for entry in odd)]
    for file in files:
        attempt.run(Command(call=partial(calls.read_image, jpeg(file))))


def a_graph_of_other_types(attempt: Attempt) -> None:
    """ONNX inputs of another type than the runtime feeds."""
    path = attempt.artifact() / "onnx" / "embed_tokens.onnx"
    content = path.read_bytes()
    for kind in (1, 6, 8, 9, 10, 14, 16):
        path.write_bytes(retype_input(content, kind))
        relist(path.parent.parent)
        attempt.run(*_RUN)


def options_out_of_range(attempt: Attempt) -> None:
    """--seed 2^64, --rank 1e20, --device cpu:7, WORLD_SIZE=abc."""
    attempt.artifact()
    seed = str(2**64)
    for argv in (
        ("prune", "dense", "--calibration", "2", "--out", "a", "--seed", seed),
        ("repair", "model", "--out", "b", "--seed", seed, *_TRAIN),
        (*_RUN, "--seed", seed, "--temperature", "1"),
        ("repair", "model", "--out", "c", "--rank", "1e20", *_TRAIN),
        ("repair", "model", "--out", "d", "--rank", "100000000000000000000", *_TRAIN),
        ("repair", "model", "--out", "e", "--alpha", "1e39", *_TRAIN),
        ("eval", "dense", "--count", "2", "--device", "cpu:7"),
        ("prune", "dense", "--calibration", "2", "--out", "f", "--device", "cpu:7"),
    ):
        attempt.run(*argv)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        argv = ("compress", "dense", "--repair", "none", "--calibration", "2", "--out", name)
        attempt.run(Command(argv, environment={name: "abc"}))


def an_output_that_is_gone(attempt: Attempt) -> None:
    """stdout closed, or full: one line."""
    attempt.artifact()
    for stdout in ("closed", "full"):
        for argv in (("inspect", "model"), ("verify-sparsity", "model", "--json"), _RUN):
            attempt.run(Command(argv, stdout=stdout, whole=True))


def a_broken_pipe(attempt: Attempt) -> None:
    """A pipe that nobody reads any more: 141 or 0, as other tools do, and no word."""
    attempt.artifact()
    for argv in (("inspect", "model"), ("verify-sparsity", "model", "--json")):
        command = Command(argv, stdout="broken", whole=True)
        outcome = attempt.material.children.run(command, attempt.box.work)
        attempt.last = (command, outcome)
        attempt.expect(outcome.code in _BROKEN_PIPE, Kind.MESSAGE, f"a broken pipe exits {outcome.code}")
        attempt.expect(not outcome.stderr, Kind.MESSAGE, "a broken pipe is told of on stderr")


def an_open_image_cut_short(attempt: Attempt) -> None:
    """An image that the caller opened with Pillow, and that is cut short."""
    attempt.artifact()
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "PNG")
    (attempt.box.work / "cut.png").write_bytes(buffer.getvalue()[:2000])
    attempt.run(Command(call=partial(calls.answer_about_open_image, "model", "cut.png")), wanted="refused")


def a_negative_seed(attempt: Attempt) -> None:
    """seed=-1, and other arguments out of range, in the API."""
    attempt.artifact()
    for options in (
        {"seed": -1},
        {"seed": 2**64},
        {"temperature": -1.0},
        {"top_p": 2.0},
        {"max_new_tokens": 0},
        {"temperature": float("nan")},
    ):
        attempt.run(Command(call=partial(calls.answer, "model", IMAGE, QUESTION, {"temperature": 1.0, **options})))


def use_after_close(attempt: Attempt) -> None:
    """A model that was closed says so."""
    attempt.artifact()
    said = attempt.run(Command(call=partial(calls.answer_after_close, "model", IMAGE)), wanted="refused").stderr
    attempt.expect("closed" in said, Kind.WRONG, "a closed model does not say that it is closed")


def control_characters_in_names(attempt: Attempt) -> None:
    """Line breaks and escape sequences in names are quoted."""
    attempt.artifact()
    for odd in ("a\nb", "\x1b[31mred", "a\rb", "\x07"):
        attempt.box.take(attempt.material.model("llava") / "dense", odd)
        image, data = f"{odd}.png", f"{odd}.jsonl"
        (attempt.box.work / data).write_text(json.dumps({"image": image, "question": "what ?", "answer": "one"}) + "\n{")
        for argv in (
            ("inspect", f"no {odd}"),
            ("inspect", odd),
            ("run", "model", "--image", image, "--prompt", "what ?"),
            ("eval", "dense", "--data", data, "--count", "1"),
            ("eval", "dense", "--data", f"no {odd}", "--count", "1"),
            ("prune", "dense", "--out", "dense", "--method", odd),
            ("prune", "dense", "--out", "p", "--target", odd),
            (odd,),
        ):
            outcome = attempt.run(*argv)
            attempt.expect("\x1b" not in outcome.stdout + outcome.stderr, Kind.MESSAGE, "an escape sequence is printed")


ATTACKS: tuple[Attack, ...] = (
    a_broken_tokenizer_config,
    a_broken_report,
    deep_json,
    a_mistyped_header,
    long_names,
    text_that_is_no_utf8,
    odd_exif,
    a_graph_of_other_types,
    options_out_of_range,
    an_output_that_is_gone,
    a_broken_pipe,
    an_open_image_cut_short,
    a_negative_seed,
    use_after_close,
    control_characters_in_names,
)
