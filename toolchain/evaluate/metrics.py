"""How an answer is scored against its reference answers, as the field's own benchmarks do it."""

import re
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from vlmc.runtime.errors import EnvironmentLacks
from vlmc.toolchain.data.sample import Sample
from vlmc.toolchain.settings import Metric

_DIGITS = dict(zip(("none", "zero", "one", "two", "three", "four", "five"), "0012345", strict=True))
_DIGITS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_APOSTROPHES = """
ain't aren't can't couldn't could've didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll let's ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't shouldn't should've
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've
who'd who'll who's who've why'll why're why's won't wouldn't would've y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", "").lower(): word for word in re.findall(r"\S+", _APOSTROPHES)}
_ENOUGH = 3
"""So many people's answers make an answer right."""
_ANLS_THRESHOLD = 0.5


def scores(metric: Metric, samples: Sequence[Sample], answers: Sequence[str]) -> list[float]:
    """Return a score for each answer: 0 to 1, and 0 to 10 for CIDEr.

    Raises:
        EnvironmentLacks: something that the metric needs is not installed.
    """
    if metric == "cider":
        return _cider(samples, answers)
    one = _EACH[metric]
    return [one(answer, sample.expected) for sample, answer in zip(samples, answers, strict=True)]


def check_metric(metric: Metric) -> None:
    """Check that a metric can be computed here.

    Raises:
        EnvironmentLacks: something that it needs is not installed.
    """
    if metric != "cider":
        return
    if find_spec("pycocoevalcap") is None:
        raise EnvironmentLacks("--metric cider needs pycocoevalcap: pip install pycocoevalcap")
    if shutil.which("java") is None:
        raise EnvironmentLacks("--metric cider needs Java, for pycocoevalcap's tokenizer: apt install default-jre-headless")


def fold(answer: str) -> str:
    """Normalise an answer for exact match: case, white space and a final full stop do not count."""
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def exact(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer is one of the references, once both are folded, else 0."""
    return float(fold(answer) in {fold(reference) for reference in references})


def vqa(answer: str, references: Sequence[str]) -> float:
    """Return the VQA accuracy (Antol et al. 2015): min(matches / 3, 1), the mean over all references but one at a time.

    Both sides are normalised as by the challenge's own evaluation. With three references or fewer, with which no answer
    could be wholly right by that rule, an answer is right if it is one of them.
    """
    given, expected = normalised(answer), [normalised(reference) for reference in references]
    matches = expected.count(given)
    if len(expected) <= _ENOUGH:
        return float(matches > 0)
    without = (matches - (reference == given) for reference in expected)
    return sum(min(1.0, count / _ENOUGH) for count in without) / len(expected)


def anls(answer: str, references: Sequence[str]) -> float:
    """Return the normalised Levenshtein similarity to the nearest reference, 0 below 0.5.

    ANLS, Biten et al. 2019, as the evaluation of rrc.cvc.uab.es computes it.
    """
    best = max(_similarity(_plain(answer), _plain(reference)) for reference in references)
    return best if best >= _ANLS_THRESHOLD else 0.0


def normalised(answer: str) -> str:
    """Return an answer as the VQA challenge compares it.

    Lower case; no punctuation but a full stop in a number; number words as digits; no articles; apostrophes restored.
    """
    text = " ".join(answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").split())
    seen = text
    for mark in _PUNCTUATION:
        text = text.replace(mark, "" if f"{mark} " in seen or f" {mark}" in seen else " ")
    words = re.sub(r"\.(?!\d)", "", text).split()
    kept = (_DIGITS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    return 1.0 if not longest else 1 - _distance(one, other) / longest


def _distance(one: str, other: str) -> int:
    """Return the least number of letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        before, row[0] = row[0], place
        for column, wanted in enumerate(other, 1):
            best = min(row[column] + 1, row[column - 1] + 1, before + (letter != wanted))
            before, row[column] = row[column], best
    return row[-1]


def _cider(samples: Sequence[Sample], answers: Sequence[str]) -> list[float]:
    """Score captions with CIDEr-D, words weighed by how rare they are among all samples' references."""
    check_metric("cider")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenize = PTBTokenizer().tokenize
    wanted = {number: [{"caption": one} for one in sample.expected] for number, sample in enumerate(samples)}
    given = {number: [{"caption": answer}] for number, answer in enumerate(answers)}
    _, each = Cider().compute_score(tokenize(wanted), tokenize(given))
    return [float(one) for one in each]


_EACH: dict[Metric, Callable[[str, Sequence[str]], float]] = {"exact": exact, "vqa": vqa, "anls": anls}
