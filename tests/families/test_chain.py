"""Every family: pruned, verified, saved, and loaded by plain transformers as the same model."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from tests import pico
from tests.families.conftest import Built, samples
from tests.repair import material
from vlmc.runtime import load
from vlmc.runtime.artifact import Artifact
from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain import data
from vlmc.toolchain.calibration.statistics import Need, Statistics
from vlmc.toolchain.evaluate import answer_all
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.models.masks import load_masks
from vlmc.toolchain.models.saved import SavedModel
from vlmc.toolchain.prune import PRUNERS
from vlmc.toolchain.reporting.verification import verify_artifact
from vlmc.toolchain.settings import ExportSettings, PruneSettings
from vlmc.toolchain.stages.export import Export
from vlmc.toolchain.stages.merge import Merge
from vlmc.toolchain.stages.prune import Prune
from vlmc.toolchain.stages.repair import Repair


@pytest.fixture(scope="session")
def artifact(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("pruned") / "artifact"
    return Prune(PruneSettings(method="wanda", calibration=2)).run(built.source, out)


@pytest.fixture(scope="session")
def reloaded(artifact: Artifact) -> nn.Module:
    model: nn.Module = AutoModelForImageTextToText.from_pretrained(artifact.root, dtype=torch.float32)
    return model.eval()


def stacks(built: Built) -> Iterator[nn.ModuleList]:
    """The towers as transformers' own attributes lead to them, whatever the family's globs say."""
    for name, module in built.model.named_modules():
        inner = name.rpartition(".")[2] in {"layers", "layer", "block", "blocks"}
        if inner and isinstance(module, nn.ModuleList) and not any(word in name for word in ("qformer", "block.")):
            yield module


@pytest.mark.integration
def test_every_linear_of_the_towers_holds_and_nothing_else_changed(
    built: Built, artifact: Artifact, reloaded: nn.Module
) -> None:
    layers = artifact.manifest.layers
    inside = {id(layer) for stack in stacks(built) for layer in stack.modules() if isinstance(layer, nn.Linear)}
    assert {name for name, module in built.model.named_modules() if id(module) in inside} == set(layers)
    for name, parameter in built.model.named_parameters():
        saved = reloaded.get_parameter(name)
        if name.removesuffix(".weight") in layers:
            assert SparsityPattern.parse("2:4").holds(saved.detach()), name
        else:
            assert torch.equal(saved, parameter), name
    reports = verify_artifact(artifact)
    assert len(reports) == len(layers)
    assert all(report.violation is None for report in reports)


@pytest.mark.integration
def test_plain_transformers_gives_the_pruned_models_logits(built: Built, artifact: Artifact, reloaded: nn.Module) -> None:
    """Wanda keeps the weights that it keeps as they were, so the pruned model is the dense one under the masks."""
    masked = deepcopy(built.model)
    for name, mask_OI in load_masks(artifact.root, artifact.manifest).items():
        masked.get_parameter(f"{name}.weight").data.mul_(mask_OI)
    inputs = built.encoder.inputs(samples()[1])
    with torch.no_grad():
        dense, pruned, found = (model(**inputs).logits for model in (built.model, masked, reloaded))
    assert torch.equal(found, pruned)
    assert not torch.allclose(pruned, dense, atol=1e-2), "the test needs a model that pruning changes"


@pytest.mark.integration
@torch.no_grad()
def test_every_block_is_calibrated_on_what_the_pruned_ones_before_it_give_out(built: Built, artifact: Artifact) -> None:
    """A block's masks are Wanda's on the inputs that it has in the pruned model, run by transformers itself."""
    pruned, seen = SavedModel.find(str(artifact.root)).load(), dict[str, Statistics]()

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: seen[name].add(args[0], name)

    masks = load_masks(artifact.root, artifact.manifest)
    for name, mask_OI in masks.items():
        seen[name] = Statistics(mask_OI.shape[1], Need.DIAGONAL, torch.device("cpu"))
        pruned.get_submodule(name).register_forward_pre_hook(note(name))
    for sample in data.load("demo", "train", 2):
        pruned(**built.encoder.inputs(sample))
    heads = [name for name in masks if is_first_to_read(name)]
    wrong = [name for name in heads if not torch.equal(wanda_mask(built.model, name, seen[name]), masks[name])]
    assert not wrong


def is_first_to_read(name: str) -> bool:
    """Whether the layer reads what comes into its block, so that pruning the block itself changes nothing for it."""
    return name.rpartition(".")[2] in {"q_proj", "k_proj", "v_proj", "qkv", "q", "k", "v"} and "EncDec" not in name


def wanda_mask(model: nn.Module, name: str, seen: Statistics) -> Tensor:
    return PRUNERS["wanda"].prune(model.get_parameter(f"{name}.weight"), seen, SparsityPattern(n=2, m=4))[1]


@pytest.mark.integration
def test_tied_embeddings_stay_tied(built: Built, reloaded: nn.Module) -> None:
    def tied(model: nn.Module) -> bool:
        return model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[operator]

    assert tied(reloaded) == tied(built.model)


@pytest.mark.integration
def test_the_processor_came_along(built: Built, artifact: Artifact) -> None:
    processor, sample = SavedModel.find(str(artifact.root)).load_processor(), samples()[1]
    again = type(built.encoder)(processor, built.source.family, built.model).answered(sample)
    first = built.encoder.answered(sample)
    assert set(again) == set(first)
    assert all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.integration
def test_families_that_are_not_deployed_are_refused(built: Built, artifact: Artifact) -> None:
    assert built.source.family.exportable == (built.name in pico.DEPLOYABLE)
    with pytest.raises(InputError, match="has no graphs for onnx yet: run 'vlmc export"):
        load(artifact.root)
    card = (artifact.root / "README.md").read_text()
    assert ("vlmc cannot export this model yet" in card) == (built.name not in pico.DEPLOYABLE)
    if built.name not in pico.DEPLOYABLE:
        with pytest.raises(InputError, match=f"vlmc cannot export a {built.name} model yet"):
            Export(ExportSettings(), "onnx", Progress(quiet=True)).run(artifact)


@pytest.mark.integration
def test_token_policies_leave_the_decoder_of_an_encoder_decoder_alone(tmp_path: Path) -> None:
    """Its input holds no visual token, and fewer tokens than the policy knows of."""
    source = SavedModel.find(str(pico.save("blip-2-t5", tmp_path / "dense")))
    pruned = Prune(PruneSettings(calibration=2, tokens="text")).run(source, tmp_path / "out")
    assert all(report.violation is None for report in verify_artifact(pruned))


@pytest.mark.slow
@pytest.mark.parametrize("built", pico.FAMILIES, indirect=True)
def test_repaired_and_merged(built: Built, artifact: Artifact, tmp_path: Path) -> None:
    options = material.OPTIONS.model_copy(update={"steps": 30})
    dense = str(built.source.folder)
    adapted = Repair(options, samples=samples(), dense=dense).run(SavedModel.find(str(artifact.root)), tmp_path / "adapted")
    measures = adapted.manifest.history[-1].measures
    assert measures["last_loss"] < 0.9 * measures["first_loss"]
    merged = Merge(samples()).run(SavedModel.find(str(adapted.root)), tmp_path / "merged")
    assert all(report.violation is None for report in verify_artifact(merged))
    assert AutoModelForImageTextToText.from_pretrained(merged.root)


@pytest.mark.integration
def test_batches_answer_as_single_questions_do(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of unlike lengths share a batch: pico models have little room, so answers are kept short."""
    monkeypatch.setattr("vlmc.toolchain.evaluate.batching.MAX_NEW_TOKENS", 6)
    quiet, words = Progress(quiet=True), ("what ?", "is there a red digit of which the colour is blue ?")
    some = [*samples(), *(replace(sample, question=text) for sample, text in zip(samples(), words, strict=False))]
    lengths = {int(built.encoder.question(sample)["input_ids"].shape[1]) for sample in some}
    assert len(lengths) > 2, "the test needs padding"
    together = answer_all(built.model, built.encoder, some, quiet, title="all", batch=4)
    assert together == [answer_all(built.model, built.encoder, [one], quiet, title="one")[0] for one in some]
    assert not any("digit ?" in text for text in together), "the prompt must not be in the answer"


@pytest.mark.slow
def test_passes_in_bfloat16_choose_nearly_the_same_masks(built: Built, artifact: Artifact, tmp_path: Path) -> None:
    """Random weights amplify rounding from block to block, T5's unscaled attention the most."""
    narrow = Prune(PruneSettings(method="wanda", calibration=2, precision="bf16")).run(built.source, tmp_path / "narrow")
    exact, found = (load_masks(one.root, one.manifest) for one in (artifact, narrow))
    agreed = {name: (mask_OI == found[name]).float() for name, mask_OI in exact.items()}
    assert next(iter(agreed.values())).mean() > 0.98
    assert 0.85 < torch.cat([one.flatten() for one in agreed.values()]).mean() < 1
