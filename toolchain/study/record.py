"""A study's results on disk: `sweep.json`, rewritten after every variant, from which a killed study is resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.errors import InputError
from vlmc.toolchain.stages.run_folder import deciding, difference
from vlmc.toolchain.study.plan import DENSE, Plan, Study, Variant

RECORD = "sweep.json"
Key = tuple[str, str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Strict):
    """What was measured of one variant: the fraction of correct answers, and how many weights were pruned."""

    accuracy: float
    zeros: int


class Row(_Strict):
    """A variant with its measures; `relative` is to the dense model's accuracy, `sparsity` over all prunable weights."""

    study: Study
    group: str
    name: str
    vision: str
    language: str
    accuracy: float
    relative: float | None
    zeros: int
    sparsity: float


class Record(_Strict):
    """A study: what decides its results, and a row for each measured variant; `left` counts those still to come.

    `data` maps what data is read for to its digest; `prunable` counts each tower's prunable weights.
    """

    model: str
    digest: str
    settings: dict[str, Any]
    versions: dict[str, str]
    data: dict[str, str]
    questions: int
    prunable: dict[str, int]
    skipped: tuple[str, ...]
    left: int
    rows: tuple[Row, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the results; the digests of model and data count, not their names."""
        found = self.model_dump(mode="json", exclude={"model", "left", "rows"})
        return found | {"settings": deciding(self.settings)}

    @property
    def measured(self) -> dict[Key, Measured]:
        """The measures by the sparsity of vision and of language."""
        return {(row.vision, row.language): Measured(accuracy=row.accuracy, zeros=row.zeros) for row in self.rows}

    def with_rows(self, plan: Plan, measured: Mapping[Key, Measured]) -> "Record":
        """Return the record with a row for each variant measured so far, in the plan's order."""
        known = [variant for variant in plan.variants if key(variant) in measured]
        rows = tuple(self._row(variant, measured[key(variant)], measured[key(DENSE)].accuracy) for variant in known)
        return self.model_copy(update={"rows": rows, "left": len(plan.variants) - len(rows)})

    def _row(self, variant: Variant, found: Measured, dense: float) -> Row:
        relative = round(found.accuracy / dense, 6) if dense else None
        sparsity = round(found.zeros / sum(self.prunable.values()), 6)
        return Row(**vars(variant), **found.model_dump(), relative=relative, sparsity=sparsity)

    def write(self, folder: Path) -> None:
        """Write `sweep.json` in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RECORD, self.model_dump_json(indent=2) + "\n")


def key(variant: Variant) -> Key:
    """Return what decides a variant's result: two variants with one key are measured once."""
    return variant.vision, variant.language


def claim(folder: Path, fresh: Record, *, force: bool) -> dict[Key, Measured]:
    """Return what an earlier run of the same study measured in that folder; with `force`, nothing.

    Raises:
        InputError: the folder holds something else, or another study that `force` does not allow to replace.
    """
    if not (folder / RECORD).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not a study of vlmc: name another folder with --out or move it away")
        return {}
    if force:
        return {}
    try:
        earlier = Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise InputError(f"{folder / RECORD} cannot be read as a study: add --force to replace it") from None
    if differs := difference(earlier.identity, fresh.identity):
        raise InputError(
            f"{folder} holds a study with other inputs or options: {differs}; name another folder with --out, or add --force"
        )
    return earlier.measured
