"""What vlmc must know of a model family: its prunable layers, where they are, its prompts, and how to deploy it."""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vlmc.runtime.artifact import Part
from vlmc.runtime.controls import Controls
from vlmc.runtime.deployment import OwnProcessor
from vlmc.runtime.errors import InputError
from vlmc.runtime.processing.own import load_processor
from vlmc.toolchain.deploy.wiring import Wiring
from vlmc.toolchain.families import prompting
from vlmc.toolchain.families.prompting import Processor as Processor

SLOT = "<image>"


@dataclass(frozen=True)
class Tower:
    """A stack of transformer blocks that run one after the other.

    `path` is a glob of the name of its ModuleList: transformers renames the modules above it from release to release.
    `mixed`: its input has visual tokens beside text tokens.
    """

    part: Part
    path: str
    mixed: bool = True


class Family(ABC):
    """One kind of vision-language model, such as LLaVA; stateless. A new family is one file with one subclass."""

    name: str  # the model type, and the language model where that makes a difference
    model_type: str  # transformers' config.model_type
    languages: tuple[str, ...] = ()  # config.text_config.model_type of the known ones; empty: any
    towers: tuple[Tower, ...]  # in order of execution; every Linear inside may be pruned
    interface: tuple[str, ...]  # globs of the Linear layers between the towers: not pruned, adapted by LoRA
    encoder_decoder: bool = False  # the language model has an encoder for the question and a decoder for the answer
    documented: str | None = None  # the prompt of the model cards, for models without a chat template
    needs_image: bool = False  # the model or its processor does not accept text alone
    answer_type: int = 0  # the `token_type_ids` of the answer's tokens
    own_processor: OwnProcessor = OwnProcessor()  # how transformers loads its processor: for images, and without torch
    genai: str | None = None  # what onnxruntime-genai calls such models; None: it knows none, or cannot feed their graphs
    notice: str | None = None  # a notice to the user before such a model is pruned

    def load_processor(self, folder: Path, *, trust: bool = False) -> Processor:
        """Load the model's own processor: its tokenizer and its image pipeline; `trust`: its own code may be run."""
        return load_processor(folder, self.own_processor, trust=trust)

    def image_token(self, processor: Processor) -> str:
        """Return the token of an image in the processor's text."""
        return str(processor.image_token)

    def prompt(
        self,
        processor: Processor,
        images: int = 1,
        question: str = prompting.QUESTION,
        system: str = "",
        controls: Controls | None = None,
    ) -> str:
        """Return the text for the processor; `{prompt}` takes the place of a question that is not given.

        The question has a mark for each image, or none: then the images come first, or where the chat template or the
        documented prompt has its own place for them. `controls` are the processor's control tokens, which the texts cannot
        spell; None: they are looked up.

        Raises:
            InputError: the model does not take that many images or a system turn, or its chat template cannot be used or is
                missing without a documented prompt.
        """
        if not images and self.needs_image:
            raise InputError(f"a {self.name} model cannot answer a question without an image")
        token = self.image_token(processor)
        controls = controls or prompting.controls_of(processor, token)
        asked = prompting.pieces_of(question, images, token, controls)
        text = self.template(processor, asked, controls.as_text(system))
        if text.count(token) != images:
            raise InputError(f"the model's chat template has {text.count(token)} places for {images} images")
        return text

    def template(self, processor: Processor, asked: Sequence[prompting.Piece], system: str = "") -> str:
        """Render the chat template for a question, or else the documented prompt.

        Raises:
            InputError: the template cannot be used, or there is neither.
        """
        text = prompting.rendered_template(processor, asked, system)
        if text is not None:
            return text
        if self.documented is None:
            raise InputError(f"this {self.name} model has no chat template: put chat_template.jinja beside its config.json")
        if system and "{system}" not in self.documented:
            raise InputError(f"a {self.name} model without a chat template cannot take a system turn")
        images = self.image_token(processor) * asked.count(prompting.IMAGE)
        question = "".join(piece.get("text", "") for piece in asked).strip()
        return self.documented.format(images=images, prompt=question, system=f"{system} " if system else "")

    def joint(self, prompt: str) -> str | None:
        """Return the text between prompt and answer; None if the answer's tokens do not depend on the prompt."""
        return None if self.encoder_decoder else "" if prompt[-1:].isspace() else " "

    def end_ids(self, model: nn.Module, processor: Processor) -> tuple[int, ...]:
        """Return the tokens that end an answer, first the one that the chat template writes after answers.

        Raises:
            InputError: the model does not name any.
        """
        ends = prompting.stop_ids(*self.generation_configs(model))
        written = [token for token in prompting.after_answers(processor) if token in ends]
        return tuple(dict.fromkeys([*written[:1], *ends]))

    def generation_configs(self, model: nn.Module) -> tuple[Any, ...]:
        """Return the configurations that may name the end tokens, in order of precedence."""
        some: Any = model
        return some.generation_config, some.config.get_text_config()

    def max_positions(self, model: nn.Module) -> int | None:
        """Return the longest input of the language model in tokens, None without a limit."""
        some: Any = model
        found: int | None = getattr(some.config.get_text_config(), "max_position_embeddings", None)
        return found

    def visual_tokens(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a boolean mask (B, T) of the visual tokens in the language model's input; `inputs` are the model's."""
        some: Any = model
        found: Tensor = inputs["input_ids"] == some.config.image_token_id
        return found

    def wiring(self, model: nn.Module) -> Wiring | None:
        """Return how the model becomes graphs; None if vlmc cannot export it yet."""
        return None

    @property
    def exportable(self) -> bool:
        """Whether vlmc can export such a model."""
        return type(self).wiring is not Family.wiring

    def blocks(self, model: nn.Module, tower: Tower) -> list[tuple[str, nn.Module]]:
        """Return the tower's blocks with their full names, in order."""
        stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and fnmatchcase(n, tower.path)]
        if len(stacks) != 1:
            raise InputError(f"this {self.name} model has {len(stacks)} stacks called {tower.path}, but should have one")
        path, stack = stacks[0]
        return [(f"{path}.{name}", block) for name, block in stack.named_children()]

    def prunable(self, model: nn.Module) -> dict[str, Part]:
        """Map the name of every layer that may be pruned to its part, in order of execution."""
        return {
            f"{prefix}.{name}": tower.part
            for tower in self.towers
            for prefix, block in self.blocks(model, tower)
            for name, _ in linears(block)
        }

    def adaptable(self, model: nn.Module) -> list[str]:
        """Return the names of the interface's Linear layers."""
        return [name for name, _ in linears(model) if matches(name, self.interface)]


def linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the name and the layer of every Linear inside."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            yield name, child


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether the name matches one of the globs."""
    return any(fnmatchcase(name, glob) for glob in globs)
