"""What a study tries: sums of sparsity in several shares, and targets on both towers or on one of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

from vlmc.runtime.errors import InputError
from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.settings import SweepSettings

Value = TypeVar("Value")
Study = Literal["dense", "split", "where"]
NONE = "none"
BOTH, VISION_ONLY, LANGUAGE_ONLY = "V + L", "V only", "L only"
_SUM = re.compile(r"(\d+(?:\.\d+)?)%?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Variant:
    """One way to prune: each tower's sparsity, `none` for dense.

    `study` is the figure that it belongs to. In `split`, `group` is the sum (`100 %`) and `name` the share (`70:30`); in
    `where`, `group` is the target (`2:4`) and `name` says which towers.
    """

    study: Study
    group: str
    name: str
    vision: str
    language: str


DENSE = Variant("dense", "", "dense", NONE, NONE)


@dataclass(frozen=True)
class Plan:
    """The variants in the order of the results, the dense model first, and a line for each share that cannot be tried."""

    variants: tuple[Variant, ...]
    skipped: tuple[str, ...]

    @classmethod
    def of(cls, options: SweepSettings) -> "Plan":
        """Read sums, shares and targets.

        Raises:
            InputError: one of them cannot be read, or no share of any sum can be tried.
        """
        pairs = product(_each(options.sums, _sum), _each(options.shares, _share))
        found = [_split(total, share) for total, share in pairs]
        tried = [one for one in found if isinstance(one, Variant)]
        skipped = [one for one in found if isinstance(one, str)]
        if not tried:
            raise InputError(f"no share can be tried: {skipped[0]}")
        where = [variant for target in _each(options.targets, _target) for variant in _where(target)]
        return cls((DENSE, *tried, *where), tuple(skipped))


def _each(text: str, read: Callable[[str], Value]) -> list[Value]:
    """Read comma-separated values; one that occurs twice counts once."""
    return list(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def _sum(text: str) -> float:
    found = _SUM.fullmatch(text)
    if found is None or not 0 < float(found[1]) < 200:
        raise InputError(f"--sums: {text!r} is not a sum of two sparsities: give a percentage between 0 and 200")
    return float(found[1])


def _share(text: str) -> float:
    """Return vision's share in percent."""
    found = _SHARE.fullmatch(text)
    if found is None or float(found[1]) + float(found[2]) == 0:
        raise InputError(f"--shares: {text!r} is not a share: give vision:language such as 60:40")
    vision, language = float(found[1]), float(found[2])
    return round(100 * vision / (vision + language), 2)


def _target(text: str) -> str:
    return str(SparsityPattern.parse(text))


def _split(total: float, share: float) -> Variant | str:
    """Return the variant, or why there is none."""
    group, name = f"{total:g} %", f"{share:g}:{round(100 - share, 2):g}"
    vision = round(total * share / 100, 2)
    language = round(total - vision, 2)
    if all(0 < sparsity < 100 for sparsity in (vision, language)):
        return Variant("split", group, name, f"{vision:g}%", f"{language:g}%")
    return f"{name} of {group} is {vision:g} % and {language:g} %, where each must be above 0 and below 100 %"


def _where(target: str) -> list[Variant]:
    towers = {BOTH: (target, target), VISION_ONLY: (target, NONE), LANGUAGE_ONLY: (NONE, target)}
    return [Variant("where", target, name, *sparsities) for name, sparsities in towers.items()]
