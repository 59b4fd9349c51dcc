"""What counts as a clean error and what as a defect; and that a spoiler always does the same to the same bytes."""

import json
from random import Random

import pytest

from tests.fuzz.commands import MIB, Limits, Outcome
from tests.fuzz.image_files import spoil_image
from tests.fuzz.judging import Kind, frame, judge
from tests.fuzz.spoiling import spoil_bytes, spoil_json
from tests.fuzz.tensor_files import join, spoil_tensors

LIMITS = Limits()
TRACE = """Traceback (most recent call last):
  File "/x/toolchain/cli/main.py", line 3, in run
  File "/x/runtime/text.py", line 9, in encode
  File "/x/site-packages/y.py", line 1, in z
builtins.TypeError: no
vlmc: internal error, TypeError: no (--debug shows where)
"""


def outcome(code: int, stderr: str = "", stdout: str = "", **more: object) -> Outcome:
    return Outcome(code, stdout, stderr, len(stderr), 0.1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (outcome(2, "vlmc: no model at x\n"), Kind.CLEAN),
        (outcome(0, "", "done\n"), Kind.ACCEPTED),
        (outcome(1, "vlmc: internal error, KeyError: 'a' (--debug shows where)\n"), Kind.INTERNAL),
        (outcome(70, TRACE), Kind.RAISED),
        (outcome(-11), Kind.CRASHED),
        (outcome(0, hung=True), Kind.HUNG),
        (outcome(0, peak=1025 * MIB), Kind.MEMORY),
        (outcome(3, "vlmc: out of memory: use a machine with more, or a smaller model\n"), Kind.MEMORY),
        (outcome(0, noted=("tries to connect",)), Kind.EXECUTED),
        (outcome(0, noted=("open outside its folder, /x",)), Kind.OUTSIDE),
        (outcome(2, "bench 3/4 0:00:07\nvlmc: no model at x\n"), Kind.CLEAN),
        (outcome(2, "vlmc: no model at a\nb\n"), Kind.MESSAGE),
        (outcome(2, "vlmc: no model at \x1b[31m\n"), Kind.MESSAGE),
        (outcome(2, "no model\n"), Kind.MESSAGE),
        (outcome(2, ""), Kind.MESSAGE),
        (outcome(5, "vlmc: odd\n"), Kind.MESSAGE),
        (outcome(2, "vlmc: " + "x" * 3000 + "\n"), Kind.MESSAGE),
    ],
)
def test_every_outcome_has_its_kind(found: Outcome, kind: Kind) -> None:
    assert judge(found, LIMITS).kind is kind


def test_what_is_touched_outside_is_a_defect() -> None:
    assert judge(outcome(0), LIMITS, ["outside/canary.txt"]).kind is Kind.OUTSIDE


def test_a_defect_lies_where_vlmc_was_last() -> None:
    assert frame(TRACE) == "TypeError in runtime/text.py:encode"


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_json, spoil_tensors, spoil_image])
def test_a_case_is_the_same_each_time_and_differs_from_the_next(spoil: object) -> None:
    entry = {"a": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}
    content = json.dumps({"a": [1, {"b": None}]}).encode() if spoil is spoil_json else join(entry, bytes(range(8)))
    first, again = ([spoil(Random(number), content) for number in range(30)] for _ in range(2))  # type: ignore[operator]
    assert first == again
    assert len({spoiled for spoiled, _ in first}) > 10
