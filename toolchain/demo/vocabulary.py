"""The demo's tokenizer: one token per word of scenes and questions."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vlmc.toolchain.demo.scenes import COLOURS, WORDS

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<bos>", "<eos>", "<unk>", "<image>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE)

ANSWER = "answer:"
"""The text between a question and its answer."""

_QUESTION_WORDS = (
    *("what", "digit", "is", "the", "top", "bottom", "left", "right", "colour", "where", "how", "many", "digits", "are"),
    *("there", "a", "larger", "smaller", "than", "largest", "smallest", "sum", "of", "and", "even", "odd", "or"),
    *("describe", "picture", "answer", "yes", "no", "none", "?", ".", ",", ":"),
)

VOCABULARY = (*SPECIAL, *WORDS, *COLOURS, *_QUESTION_WORDS)
"""Every token, in the order of the ids."""

VOCABULARY_SIZE = 80
"""Rows of the embedding: the vocabulary, padded to a multiple of 16."""


def build_tokenizer(**extra: object) -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, separate punctuation, `<bos>` before the text and nothing after it."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocab=ids, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
        **extra,
    )


def encode(text: str) -> list[int]:
    """Tokenise quickly, without `<bos>`, a text whose words are all in the vocabulary."""
    return [_IDS[word] for word in text.translate(_APART).split()]


_IDS = {token: number for number, token in enumerate(VOCABULARY)}
_APART = str.maketrans({mark: f" {mark}" for mark in "?.,:"})
