"""Training of `smol`: rows are the processor's tokens, the language model stays as it is, a stopped training goes on."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vlmc.runtime.errors import InputError
from vlmc.toolchain.data.encode import Encoder
from vlmc.toolchain.demo.shipped import verify
from vlmc.toolchain.families import FAMILIES
from vlmc.toolchain.smol import train, watching
from vlmc.toolchain.smol.architecture import processor
from vlmc.toolchain.smol.dataset import draw_asked, samples
from vlmc.toolchain.smol.joining import LANGUAGE, WEIGHTS, blank, trained_part
from vlmc.toolchain.smol.keeping import Keeping
from vlmc.toolchain.smol.language import read_tokenizer
from vlmc.toolchain.smol.learning import Plan, Training, last_states
from vlmc.toolchain.smol.looks import look
from vlmc.toolchain.smol.packed import IGNORE, Packed
from vlmc.toolchain.smol.packing import Packer
from vlmc.toolchain.smol.publishing import Run
from vlmc.toolchain.smol.scenes import draw_scene
from vlmc.toolchain.smol.scoring import score
from vlmc.toolchain.smol.text import logits, perplexity
from vlmc.toolchain.smol.tuning import adapt, fill, merge
from vlmc.toolchain.smol.vision import Vision

PLAN = Plan(
    vision_steps=2,
    vision_scenes=3,
    alignment_steps=2,
    joint_steps=2,
    scenes=2,
    seen=3,
    tokens=300,
    warm=1,
    variants=1,
    prepared=4,
)


@pytest.fixture(scope="module")
def tokenizer(gguf_path: Path) -> Any:
    return read_tokenizer(gguf_path)


@pytest.fixture
def model(gguf_path: Path) -> Any:
    torch.manual_seed(0)
    return blank(gguf_path).eval()


def test_rows_are_the_tokens_and_labels_that_repair_uses(model: Any, tokenizer: Any) -> None:
    encoder = Encoder(processor(tokenizer), FAMILIES["idefics3"], model)
    for sample in samples("train", 7):
        packed, pixels_BCHW = Packer(tokenizer).singles([sample])
        encoded = encoder.answered(sample)
        assert packed.ids_BT[0].tolist() == encoded["input_ids"][0, :-1].tolist()
        assert packed.labels_BT[0].tolist() == encoded["labels"][0, 1:].tolist()
        torch.testing.assert_close(pixels_BCHW, encoded["pixel_values"][0], atol=1e-6, rtol=0)


def test_numbers_are_split_into_digits(tokenizer: Any) -> None:
    assert tokenizer.tokenize("a 12\n") == ["a", "Ġ", "1", "2", "Ċ"]
    assert tokenizer.convert_tokens_to_ids("<image>") == 16
    assert tokenizer.decode(tokenizer("What is 3 + 4?")["input_ids"]) == "What is 3 + 4?"


@pytest.mark.integration
def test_packed_questions_do_not_see_each_other(model: Any, tokenizer: Any) -> None:
    """Each question's last states in a packed row are those that the whole model gives it alone."""
    packer, drawn = Packer(tokenizer), [draw_asked("train", kind, 0) for kind in ("name", "caption")]
    scene = drawn[0][0]
    shown = look([scene], [None]).pixels_BCHW
    packed = packer.pack([packer.row([asked for _, asked in drawn])])
    with torch.no_grad():
        together_TD = last_states(model, packed, Vision(model)(shown))[0]
        for segment in (1, 2):
            chosen_T = (packed.segment_BT[0] == 0) | (packed.segment_BT[0] == segment)
            ids_BT = packed.ids_BT[:, chosen_T]
            alone = model.model(input_ids=ids_BT, pixel_values=shown[:, None], attention_mask=torch.ones_like(ids_BT))
            torch.testing.assert_close(together_TD[chosen_T], alone.last_hidden_state[0], atol=1e-4, rtol=1e-4)


def test_rows_are_filled_and_never_longer_than_planned(tokenizer: Any) -> None:
    random, packer = Random(0), Packer(tokenizer)
    for _ in range(5):
        row = packer.fill(draw_scene(random, "train"), 300, {"caption": 3.0}, random)
        assert len(packer.prefix) < len(row.ids) <= 300
        assert any(label != IGNORE for label in row.labels)


@pytest.mark.slow
def test_training_moves_vision_alone_and_goes_on_where_it_stopped(gguf_path: Path, tokenizer: Any) -> None:
    def training() -> Training:
        torch.manual_seed(0)
        return Training(blank(gguf_path), tokenizer, PLAN, seed=5)

    states: list[dict[str, Any]] = []
    whole = training()
    before = {name: one.clone() for name, one in whole.model.state_dict().items()}
    whole.run(lambda now, _: states.append(deepcopy(now.state())))
    for name, weight in whole.model.state_dict().items():
        if ".lora_" in name:
            assert weight.any(), name
        else:
            moved = not torch.equal(weight, before[name])
            assert moved <= (name in trained_part(whole.model)), name
    for number, state in enumerate(states, 1):
        assert (number > 4) == any(one.any() for name, one in state["language"].items() if name.endswith("lora_B"))
    assert not torch.equal(whole.vision.connector.modality_projection.proj.weight, before[_CONNECTOR])
    for stopped in (0, 1, 2, 3, 4):
        again = training()
        again.load_state(states[stopped])
        again.run(lambda *_: None)
        for one, other in zip(again.vision.parameters(), whole.vision.parameters(), strict=True):
            assert torch.equal(one, other)


_CONNECTOR = "model.connector.modality_projection.proj.weight"


@pytest.mark.integration
def test_the_connector_starts_with_the_words_for_what_is_there(model: Any, tokenizer: Any) -> None:
    """Where the encoder's output tells scenes apart, the image tokens are the embeddings of their words."""
    training = Training(model, tokenizer, replace(PLAN, prepared=12), seed=0)
    training.start_alignment()
    seen, scenes = training.look("wording", 12)
    with torch.no_grad():
        told_BIL = training.vision(seen.pixels_BCHW)
    meant_BIL = torch.stack([training.words.tokens(scene) for scene in scenes])
    away = (told_BIL - meant_BIL).norm() / (meant_BIL - meant_BIL.mean((0, 1))).norm()
    assert away < 0.5


@pytest.mark.integration
def test_a_connector_that_learned_follows_an_encoder_that_goes_on_alone(model: Any, tokenizer: Any) -> None:
    training = Training(model, tokenizer, replace(PLAN, prepared=12), seed=0)
    former = training.former = deepcopy(training.vision)
    seen, _ = training.look("wording", 12)
    with torch.no_grad():
        training.vision.encoder.post_layernorm.weight.mul_(2)
        said_BIL, astray_BIL = former(seen.pixels_BCHW), training.vision(seen.pixels_BCHW)
        training.start_alignment()
        told_BIL = training.vision(seen.pixels_BCHW)
    assert (told_BIL - said_BIL).norm() < 0.1 * (astray_BIL - said_BIL).norm()
    assert training.former is None


@pytest.mark.integration
def test_words_stand_in_the_cells_that_they_are_about(model: Any, tokenizer: Any) -> None:
    training = Training(model, tokenizer, PLAN, seed=0)
    scene = next(scene for scene in iter(lambda: draw_scene(Random(3), "train"), None) if scene.cells[3] is not None)
    empty = replace(scene, cells=(*scene.cells[:3], None))
    changed_I = (training.words.tokens(scene) != training.words.tokens(empty)).any(-1)
    assert set(changed_I.nonzero().flatten().tolist()) <= {14, 15}
    assert changed_I.any()


@pytest.mark.slow
def test_make_writes_a_trained_part_from_which_another_training_starts(
    gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "language_model", lambda: gguf_path)
    run = Run(PLAN, seed=1, threads=torch.get_num_threads(), count=7)
    train.make(tmp_path / "work", tmp_path / "trained", run)
    verify(tmp_path / "trained")
    card = (tmp_path / "trained" / "README.md").read_text()
    assert "| caption | " in card
    assert "| all | " in card
    assert "That is not reached yet" in card
    assert (tmp_path / "trained" / WEIGHTS).stat().st_size < 12_000_000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    still = replace(run, start=tmp_path / "trained", plan=replace(PLAN, joint_steps=0))
    train.make(tmp_path / "again", tmp_path / "same", still)
    for file in (WEIGHTS, LANGUAGE):
        first, second = (load_file(tmp_path / folder / file) for folder in ("trained", "same"))
        assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    more = replace(still, more_vision=1)
    train.make(tmp_path / "more", tmp_path / "further", more)
    seen, language = (load_file(tmp_path / "further" / file) for file in (WEIGHTS, LANGUAGE))
    assert any(not torch.equal(weight, first) for weight, first in zip(seen.values(), _of(tmp_path, WEIGHTS), strict=True))
    assert all(torch.equal(weight, first) for weight, first in zip(language.values(), _of(tmp_path, LANGUAGE), strict=True))
    with pytest.raises(InputError, match="--more-vision goes on from weights: name them by --start"):
        train.make(tmp_path / "none", tmp_path / "nothing", replace(more, start=None))


def _of(folder: Path, file: str) -> list[torch.Tensor]:
    return list(load_file(folder / "trained" / file).values())


def test_adapters_that_are_merged_say_what_they_said_before(model: Any) -> None:
    ids_NT = torch.arange(40, 48)[None]
    before = logits(model, ids_NT)
    adapters = adapt(model, rank=2, seed=0)
    assert torch.equal(logits(model, ids_NT), before)
    learned = {name: torch.full_like(one, 0.01) for name, one in adapters.parameters().items()}
    fill(adapters, learned)
    told = logits(model, ids_NT)
    assert not torch.allclose(told, before, atol=1e-4)
    adapters.detach()
    merge(model, learned)
    torch.testing.assert_close(logits(model, ids_NT), told)


@pytest.mark.integration
def test_the_language_is_kept_where_it_says_what_it_said(model: Any, tokenizer: Any) -> None:
    adapters = adapt(model, rank=2, seed=0)
    keeping = Keeping(model, adapters, tokenizer)
    assert keeping.loss(12, Random(0)).item() == pytest.approx(0, abs=1e-6)
    before = perplexity(model, tokenizer)
    fill(adapters, {name: torch.full_like(one, 0.02) for name, one in adapters.parameters().items()})
    assert keeping.loss(12, Random(0)).item() > 1e-5
    assert perplexity(model, tokenizer) != before


def test_score_counts_exact_answers(model: Any, tokenizer: Any) -> None:
    asked = list(samples("validation", 7))
    packer = Packer(tokenizer)
    told = score(model, packer, asked)
    assert told.keys() == {"all", *(sample.kind for sample in asked)}
    packed, pixels_BCHW = packer.singles(asked[:1])
    with torch.no_grad():
        best_T = model.lm_head(last_states(model, packed, Vision(model)(pixels_BCHW)))[0].argmax(-1)
    assert _right(packed, best_T) == bool(score(model, packer, asked[:1])["all"])
    replaced = replace(packed, labels_BT=torch.where(packed.labels_BT == IGNORE, IGNORE, best_T))
    assert _right(replaced, best_T)


def _right(packed: Packed, best_T: torch.Tensor) -> bool:
    chosen_T = packed.labels_BT[0] != IGNORE
    return torch.equal(best_T[chosen_T], packed.labels_BT[0][chosen_T])


@pytest.mark.integration
def test_a_checkpoint_of_another_seed_is_refused(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "language_model", lambda: gguf_path)
    (tmp_path / "work").mkdir()
    torch.save({"seed": 2, "step": 1}, tmp_path / "work" / watching.CHECKPOINT)
    with pytest.raises(InputError, match="with seed 2"):
        train.make(tmp_path / "work", tmp_path / "trained", Run(PLAN, seed=1, threads=torch.get_num_threads(), count=7))
    (tmp_path / "trained").mkdir()
    with pytest.raises(InputError, match="exists"):
        train.make(tmp_path / "work", tmp_path / "trained", Run(PLAN, seed=2, threads=1, count=7))
