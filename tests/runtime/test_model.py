"""The runtime answers as transformers does, in pieces or whole, from several threads, and without torch."""

import asyncio
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest

from tests import pico
from tests.artifacts import pruned
from tests.runtime.conftest import Reference
from vlmc.runtime import Answer, Closed, EnvironmentLacks, InputError, Model, load
from vlmc.runtime.artifact import Artifact, extend
from vlmc.runtime.deployment import FixedProcessor
from vlmc.runtime.prompts import fill_prompt
from vlmc.runtime.sessions import SESSIONS, OnnxSession, Runs
from vlmc.toolchain.deploy.agreement import greedy
from vlmc.toolchain.deploy.probes import asked

ASKED = [(seed, question) for seed in range(6) for question in pico.QUESTIONS]


@pytest.fixture
def model(reference: Reference) -> Iterator[Model]:
    with load(reference.folder, threads=1) as loaded:
        yield loaded


@pytest.mark.integration
def test_greedy_tokens_and_text_are_those_of_transformers(reference: Reference, model: Model) -> None:
    for seed, question in ASKED:
        image = pico.picture(seed, 30 + 7 * seed, 50 - 3 * seed)
        expected, _ = greedy(reference.model, reference.encoder, asked("", question, image), 16)
        answer = model.generate(image, question, max_new_tokens=16)
        assert list(answer.tokens) == expected
        assert answer.text == reference.encoder.processor.decode(expected, skip_special_tokens=True).strip()


def test_answers_depend_on_the_image(model: Model) -> None:
    assert len({model.generate(pico.picture(seed), pico.QUESTIONS[0]).tokens for seed in range(6)}) > 1


def test_both_ways_to_end_are_told(reference: Reference, model: Model) -> None:
    answer = model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=3)
    assert (answer.finish, len(answer.tokens)) == ("length", 3)
    stopping = reference.deployment.model_copy(update={"stop_ids": (answer.tokens[1],)})
    with Model.from_graphs(reference.folder, stopping, reference.folder / "onnx") as other:
        stopped = other.generate(pico.picture(0), pico.QUESTIONS[0])
    assert (stopped.finish, stopped.tokens) == ("stop", answer.tokens[: answer.tokens.index(answer.tokens[1]) + 1])


@pytest.mark.integration
def test_answer_ends_where_positions_end(reference: Reference) -> None:
    endless = reference.deployment.model_copy(update={"stop_ids": ()})
    with Model.from_graphs(reference.folder, endless, reference.folder / "onnx") as other:
        answer = other.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=1000)
    assert answer.finish == "length"
    assert answer.prompt_tokens + len(answer.tokens) == reference.deployment.max_positions


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_stream_concatenates_to_the_answer(model: Model, temperature: float) -> None:
    for seed in range(3):
        whole = model.generate(pico.picture(seed), pico.QUESTIONS[0], temperature=temperature, seed=seed)
        pieces = list(model.stream(pico.picture(seed), pico.QUESTIONS[0], temperature=temperature, seed=seed))
        assert "".join(pieces) == whole.text == str(whole)
        assert len(pieces) > 1


def test_seed_decides_a_sampled_answer(model: Model) -> None:
    ask = [model.generate(pico.picture(0), "what is it", temperature=2.0, seed=seed).tokens for seed in (1, 1, 2)]
    assert ask[0] == ask[1] != ask[2]


def test_stop_strings_end_an_answer(model: Model) -> None:
    whole = model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=12)
    word = whole.text.split()[2]
    cut = model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=12, stop=[word, "never"])
    assert (cut.text, cut.finish) == (whole.text[: whole.text.index(word)].strip(), "stop")
    assert cut.tokens == whole.tokens[: len(cut.tokens)]


def test_a_penalty_makes_words_new(model: Model) -> None:
    found = model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=12, repetition_penalty=100.0)
    assert len(set(found.tokens)) == len(found.tokens)


def test_times_are_told(model: Model) -> None:
    began = perf_counter()
    timings = model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=4).timings
    assert 0 < timings.first_token <= timings.total <= perf_counter() - began
    speed = timings.tokens_per_second
    assert speed is None or speed == pytest.approx((timings.tokens - 1) / (timings.total - timings.first_token))
    assert model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=1).timings.tokens_per_second is None


def test_answers_may_be_awaited(model: Model) -> None:
    async def ask() -> list[Answer]:
        return await asyncio.gather(*(model.agenerate(pico.picture(seed), pico.QUESTIONS[0]) for seed in range(3)))

    assert asyncio.run(ask()) == [model.generate(pico.picture(seed), pico.QUESTIONS[0]) for seed in range(3)]


def test_a_task_that_is_cancelled_stops_at_the_next_token(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, before = list[int](), model.engine.step

    def step(*given: Any) -> Any:
        steps.append(1)
        sleep(0.05)
        return before(*given)

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.agenerate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=32), 0.12)
        await asyncio.sleep(0.12)
        count = len(steps)
        await asyncio.sleep(0.12)
        assert len(steps) == count < 12

    monkeypatch.setattr(model.engine, "step", step)
    asyncio.run(ask())


def test_closing_ends_an_answer_that_is_on_its_way(reference: Reference) -> None:
    model = load(reference.folder, threads=1)
    pieces = model.stream(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=16)
    next(pieces)
    model.close()
    with pytest.raises(Closed, match="is closed: load the model again"):
        list(pieces)


def test_path_bytes_and_image_give_one_answer(model: Model, tmp_path: Path) -> None:
    image, stream = pico.picture(3), io.BytesIO()
    image.save(tmp_path / "a.png")
    image.save(stream, "png")
    forms = (image, tmp_path / "a.png", str(tmp_path / "a.png"), stream.getvalue())
    assert len({model.generate(form, pico.QUESTIONS[1]).tokens for form in forms}) == 1


@pytest.mark.integration
def test_threads_share_a_model(model: Model) -> None:
    def ask(asked: tuple[int, str]) -> tuple[int, ...]:
        return model.generate(pico.picture(asked[0]), asked[1]).tokens

    alone = [ask(asked) for asked in ASKED]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, ASKED * 3)) == alone * 3


def test_raw_prompt_is_the_whole_input(reference: Reference, model: Model) -> None:
    raw = fill_prompt(reference.deployment.prompt, pico.QUESTIONS[0])
    same = [model.generate(pico.picture(0), prompt, raw=raw_) for prompt, raw_ in ((raw, True), (pico.QUESTIONS[0], False))]
    assert same[0].tokens == same[1].tokens


def test_wrong_inputs_are_one_line(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    image = pico.picture(0)
    with pytest.raises(InputError, match=r"a\.png is not an image that can be read"):
        model.generate(tmp_path / "a.png", "what")
    with pytest.raises(InputError, match="no image at"):
        model.generate(tmp_path / "b.png", "what")
    with pytest.raises(InputError, match="prompt is empty"):
        model.generate(image, "  ")
    with pytest.raises(InputError, match=r"tokens, and this model has room for \d+: ask a shorter question"):
        model.generate(image, "what " * 200)
    with pytest.raises(
        InputError, match=r"images were given, and this model looks at 1|slots for 2 images: put .* where each"
    ):
        model.generate([image, image], "what is shown ?", raw=True)
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        model.generate(image, "what", max_new_tokens=0)
    with pytest.raises(InputError, match="temperature -1"):
        model.stream(image, "what", temperature=-1)


@pytest.mark.integration
def test_missing_graphs_and_providers_are_told(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="no CUDAExecutionProvider here"):
        load(reference.folder, providers=["CUDAExecutionProvider"])
    bare = pruned(pico.save("llava", tmp_path / "dense"), tmp_path / "bare")
    with pytest.raises(InputError, match=r"has no graphs for onnx yet: run 'vlmc export .* --backend onnx'"):
        load(bare.root)


def test_another_backend_is_run_by_its_own_session(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot run paper graphs: give one of onnx"):
        load(reference.folder, backend="paper")
    monkeypatch.setitem(SESSIONS, "paper", Runs(".paper", OnnxSession))
    with pytest.raises(InputError, match=r"has no graphs for paper yet: run 'vlmc export .* --backend paper'"):
        load(reference.folder, backend="paper")
    shutil.copytree(reference.folder, tmp_path / "artifact")
    with extend(Artifact.open(tmp_path / "artifact"), "paper") as folder:
        shutil.copyfile(reference.folder / "onnx/deployment.json", folder / "deployment.json")
        for path in (reference.folder / "onnx").glob("*.onnx"):
            shutil.copyfile(path, folder / f"{path.stem}.paper")
    with load(tmp_path / "artifact", backend="paper", threads=1) as other, load(reference.folder, threads=1) as model:
        asked = (pico.picture(0), pico.QUESTIONS[0])
        assert other.generate(*asked).tokens == model.generate(*asked).tokens


def test_damaged_graph_is_told(reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes((reference.folder / "onnx/embed_tokens.onnx").read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a\.onnx cannot be run"):
        OnnxSession(tmp_path / "a.onnx")


ASK = """
import sys
{before}
from vlmc.runtime import load
with load(sys.argv[1]) as model:
    print(model.generate(sys.argv[2], "what is the largest digit ?", max_new_tokens=8).tokens)
assert sys.modules.get("torch") is None, "torch imported"
if {fixed}:
    assert sys.modules.get("transformers") is None, "transformers imported"
"""
WITHOUT = "sys.modules['torch'] = sys.modules['torchvision'] = None"


@pytest.mark.integration
@pytest.mark.parametrize("absent", [True, False])
def test_torch_is_neither_needed_nor_imported(reference: Reference, model: Model, absent: bool, tmp_path: Path) -> None:
    """Nor is transformers, but for a family's own processor, which takes torch where it finds it."""
    fixed = isinstance(reference.deployment.processor, FixedProcessor)
    if not (fixed or absent):
        pytest.skip("transformers imports torch where it finds it")
    before = WITHOUT + ("; sys.modules['transformers'] = None" if fixed else "") if absent else ""
    pico.picture(0).save(tmp_path / "a.png")
    command = [sys.executable, "-c", ASK.format(before=before, fixed=fixed), str(reference.folder), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model.generate(pico.picture(0), pico.QUESTIONS[0], max_new_tokens=8).tokens)


def test_import_is_light() -> None:
    code = "import sys, vlmc.runtime; print([n for n in ('numpy', 'pydantic', 'onnxruntime') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_public_names_are_all_there() -> None:
    import vlmc.runtime

    assert all(getattr(vlmc.runtime, name) is not None for name in vlmc.runtime.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = vlmc.runtime.nothing
