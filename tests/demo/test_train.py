"""Training of the demo models: the packed form, the batches and a few steps of learning."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.demo import train
from vlmc.toolchain.demo.dataset import samples
from vlmc.toolchain.demo.glyphs import FULL, coverage_NHW
from vlmc.toolchain.demo.learning import hidden
from vlmc.toolchain.demo.packing import IGNORE, Recipe, batches, single, warped
from vlmc.toolchain.demo.questions import KINDS
from vlmc.toolchain.demo.shipped import verify
from vlmc.toolchain.demo.train import DEMOS
from vlmc.toolchain.demo.vocabulary import VOCABULARY, build_tokenizer, encode


@pytest.fixture(params=sorted(DEMOS))
def name(request: pytest.FixtureRequest) -> str:
    """Each demo model in turn."""
    return str(request.param)


@pytest.mark.integration
def test_packed_questions_do_not_see_each_other(name: str) -> None:
    """Each question's hidden states in a packed row are those that it has alone."""
    demo = DEMOS[name]
    torch.manual_seed(0)
    model = demo.build(demo.size).eval()
    packed = next(batches(replace(demo.recipe, images=1, questions=4), "a test", warped(0, 1)))
    with torch.no_grad():
        together_TD = hidden(model, packed)[0][0]
        for segment in range(1, int(packed.segment_BT.max()) + 1):
            chosen_T = (packed.segment_BT[0] == 0) | (packed.segment_BT[0] == segment)
            fields = {
                field: getattr(packed, field)[:, chosen_T]
                for field in ("ids_BT", "positions_BT", "segment_BT", "labels_BT", "weights_BT")
            }
            alone_TD = hidden(model, replace(packed, **fields))[0][0]
            torch.testing.assert_close(together_TD[chosen_T], alone_TD, atol=1e-4, rtol=1e-4)


def test_labels_are_the_answer_then_eos() -> None:
    sample = Sample("x", samples("test", 1)[0].images, "where is the seven?", "top left", "where")
    labels_T = single((1, 4), [sample]).labels_BT[0]
    assert [VOCABULARY[i] for i in labels_T if i != IGNORE] == ["top", "left", "<eos>"]


def test_quick_encoding_is_the_tokenizers() -> None:
    tokenizer = build_tokenizer()
    for sample in samples("train", 110):
        text = f"{sample.question} answer: {sample.answer}"
        assert tokenizer(text)["input_ids"][1:] == encode(text)


def test_training_pixels_are_the_processors(name: str) -> None:
    """What `single` feeds the model is what the stored processor makes of the same image."""
    demo, sample = DEMOS[name], samples("validation", 1)[0]
    pixels = demo.processor()(images=sample.load_image(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(single(demo.recipe.prefix, [sample]).pixels_BCHW, pixels, atol=1e-6, rtol=0)


def test_warped_handwriting_stays_ink() -> None:
    warped_VNHW = warped(0, 2)
    assert warped_VNHW.min() >= 0
    assert warped_VNHW.max() <= FULL
    assert not np.array_equal(warped_VNHW[0], warped_VNHW[1])
    assert abs(float(warped_VNHW.mean()) / float(coverage_NHW().mean()) - 1) < 0.15


def test_batches_are_the_same_for_the_same_seed() -> None:
    recipe, coverage = Recipe(prefix=(1, 4), images=2, questions=3), warped(0, 2)
    one, other = (next(batches(recipe, "seed", coverage)) for _ in range(2))
    assert torch.equal(one.ids_BT, other.ids_BT)
    assert torch.equal(one.pixels_BCHW, other.pixels_BCHW)


@pytest.mark.slow
def test_make_writes_a_whole_folder_twice_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    short = replace(DEMOS[name], hyper=replace(DEMOS[name].hyper, steps=4, warm=2, variants=1))
    monkeypatch.setitem(DEMOS, name, short)
    monkeypatch.setattr(train, "samples", lambda split, count=None, kinds=None: samples(split, 20, kinds))
    try:
        for folder in (tmp_path / "one", tmp_path / "two"):
            train.make(name, folder, seed=3, threads=1)
            verify(folder)
            AutoProcessor.from_pretrained(folder)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("one", "two"))
    assert first == second
    assert all(f"| {kind} |" in (tmp_path / "one" / "README.md").read_text() for kind in KINDS)
