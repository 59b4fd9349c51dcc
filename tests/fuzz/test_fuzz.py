"""A small fixed share of the fuzzer: the same cases each time, as hypothesis draws them without a random seed."""

from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import calls
from tests.fuzz.cases import AREAS, IMAGE, try_case
from tests.fuzz.commands import Command, Limits
from tests.fuzz.directed import DIRECTED, try_directed
from tests.fuzz.judging import judge
from tests.fuzz.material import MODEL, Material
from tests.fuzz.sandbox import Sandbox

pytestmark = pytest.mark.fuzz
SLOW = {
    "graphs_lead_outside",
    "failed_export_keeps_the_graphs",
    "two_exports_at_once",
    "eval_and_export_at_once",
    "deep_json",
}
"""Attacks that export, and so take long."""
COSTLY = {"adapter", "dense", "data", "options"}
"""Areas whose cases import and train as well."""
fixed = partial(
    settings,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("area", AREAS)
def test_no_case_is_a_defect(area: str, material: Material, box: Path) -> None:
    @fixed(max_examples=10 if area in COSTLY else 25, phases=[Phase.generate])  # a number has nothing to shrink
    @given(number=st.integers(0, 2**32))
    def check(number: int) -> None:
        finding = try_case(area, number, material, box)
        told = f"{finding.verdict}\n{finding.what}\n{finding.command}\nagain: python -m tests.fuzz --case {area}:{number}"
        assert not finding.verdict.is_defect, told

    check()


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in DIRECTED])
def test_no_known_attack_is_a_defect(name: str, material: Material, box: Path) -> None:
    wrong = [finding for finding in try_directed(name, material, box) if finding.verdict.is_defect]
    told = [f"{one.verdict.kind}: {one.verdict.place} ({one.command})" for one in wrong]
    assert not told, f"again: python -m tests.fuzz --case directed:{name}"


def test_any_text_is_a_prompt_or_refused_in_a_line(material: Material, box: Path) -> None:
    with Sandbox(box) as sandbox:
        sandbox.take(material.model("llava") / MODEL)
        sandbox.take(material.images()[0], IMAGE)

        @fixed(max_examples=25)
        @given(prompt=st.text(st.characters(), max_size=40))  # lone surrogates too
        def check(prompt: str) -> None:
            asked = Command(call=partial(calls.answer, MODEL, IMAGE, prompt, {"max_new_tokens": 1}))
            verdict = judge(material.children.run(asked, sandbox.work), Limits())
            assert not verdict.is_defect, verdict

        check()
