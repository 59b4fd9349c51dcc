"""The report of an artifact, one page for people: what was done, what came of it, where it hurts.

It tells times, so it is no part of what equal inputs make equal: the manifest does not list it, and nothing reads it.
"""

from collections.abc import Callable
from typing import Any

from vlmc.runtime.artifact import Artifact
from vlmc.runtime.artifact.texts import write_text
from vlmc.runtime.artifact.writing import changing, check_inside
from vlmc.runtime.errors import UNUSABLE, InputError, one_line
from vlmc.runtime.json_text import read_json
from vlmc.toolchain.machine.progress import Progress
from vlmc.toolchain.reporting import report_page
from vlmc.toolchain.reporting.export_page import backend
from vlmc.toolchain.reporting.layers import measure_layers
from vlmc.toolchain.reporting.page_parts import document
from vlmc.toolchain.reporting.paths import BENCH, CURVES, EVALUATION, EXAMPLES, EXPORTS, PAGE

Sections = Callable[[Any], list[str]]


def write_report(artifact: Artifact, layers: dict[str, Any]) -> None:
    """Write `reports/report.html` from the history, the reports and what `measure_layers` found.

    Raises:
        InputError: a report in the artifact is damaged; or as `changing`, or the page would not lie in the artifact.
    """
    check_inside(artifact.root, PAGE)
    with changing(artifact) as current:
        text = document(f"Report on {artifact.manifest.origin.model}, compressed", _sections(current, layers))
        (current.root / PAGE).parent.mkdir(parents=True, exist_ok=True)
        write_text(current.root / PAGE, text)


def refresh(artifact: Artifact, progress: Progress) -> None:
    """Write the report again where there is one, after something was added to the artifact; say it if that fails."""
    if (artifact.root / PAGE).is_file():
        try:
            current = Artifact.open(artifact.root)
            write_report(current, measure_layers(current, None))
        except InputError as error:
            progress.notice(f"the report was not written again: {error}")


def _sections(artifact: Artifact, layers: dict[str, Any]) -> list[str]:
    root, manifest = artifact.root, artifact.manifest

    def part(path: str, build: Sections, again: str, *, text: bool = False) -> list[str]:
        if path not in manifest.files:
            return []
        try:
            return build((root / path).read_text(encoding="utf-8") if text else read_json(root / path))
        except (*UNUSABLE, StopIteration) as error:
            told = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"{root / path} cannot be read ({told}): run 'vlmc {again} {root}' again") from None

    measured = part(EVALUATION, lambda found: report_page.quality(manifest, found), "eval")
    return [
        *report_page.overview(artifact, layers),
        *(measured or report_page.quality(manifest, None)),
        *part(EXAMPLES, report_page.examples, "eval"),
        *report_page.history(artifact),
        *part(CURVES, report_page.curves, "repair", text=True),
        *report_page.layers(layers),
        *part(EXPORTS, lambda found: [backend(*one) for one in found["backends"].items()], "export"),
        *part(BENCH, report_page.bench, "bench"),
    ]
