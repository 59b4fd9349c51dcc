import pytest

from vlmc.runtime.errors import InputError
from vlmc.toolchain.settings import SweepSettings
from vlmc.toolchain.study import Plan


def plan(**changes: str) -> Plan:
    return Plan.of(SweepSettings.model_validate(changes))


def towers(found: Plan, study: str) -> dict[tuple[str, str], tuple[str, str]]:
    return {(one.group, one.name): (one.vision, one.language) for one in found.variants if one.study == study}


def test_the_defaults_are_the_papers() -> None:
    split = towers(plan(), "split")
    assert [name for group, name in split if group == "100 %"] == ["70:30", "60:40", "50:50", "40:60", "30:70", "20:80"]
    assert split["100 %", "70:30"] == ("70%", "30%")
    assert split["120 %", "50:50"] == ("60%", "60%")
    assert split["120 %", "70:30"] == ("84%", "36%")
    assert split["120 %", "20:80"] == ("24%", "96%")
    assert towers(plan(), "where") == {
        ("2:4", "V + L"): ("2:4", "2:4"),
        ("2:4", "V only"): ("2:4", "none"),
        ("2:4", "L only"): ("none", "2:4"),
    }
    assert plan().variants[0].study == "dense"
    assert not plan().skipped


def test_a_share_beyond_a_tower_is_skipped_and_told() -> None:
    found = plan(sums="100,150", shares="20:80,0:100,50:50")
    assert list(towers(found, "split")) == [("100 %", "20:80"), ("100 %", "50:50"), ("150 %", "50:50")]
    assert [note.partition(" is ")[0] for note in found.skipped] == ["0:100 of 100 %", "20:80 of 150 %", "0:100 of 150 %"]
    assert "30 % and 120 %" in found.skipped[1]


@pytest.mark.parametrize(("total", "share"), [("100", "0:1"), ("100", "1:0"), ("125", "80:20"), ("125", "20:80")])
def test_no_tower_is_pruned_by_nothing_or_by_all(total: str, share: str) -> None:
    found = plan(sums=f"{total},40", shares=f"{share},1:1")
    assert (f"{total} %", "50:50") in towers(found, "split")
    assert len(found.skipped) >= 1
    assert found.skipped[0].endswith("each must be above 0 and below 100 %")


def test_what_is_written_twice_or_in_other_words_counts_once() -> None:
    found = plan(sums="100, 100%", shares="1:1,50:50, 30:30", targets="2:4,4:8,2:4")
    assert towers(found, "split") == {("100 %", "50:50"): ("50%", "50%")}
    assert {group for group, _ in towers(found, "where")} == {"2:4", "4:8"}


def test_shares_need_not_add_up_to_a_hundred() -> None:
    assert towers(plan(sums="90", shares="2:1"), "split") == {("90 %", "66.67:33.33"): ("60%", "30%")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sums": "0"}, "--sums: '0'"),
        ({"sums": "200"}, "between 0 and 200"),
        ({"sums": "100,,120"}, "--sums: ''"),
        ({"sums": "-50"}, "--sums: '-50'"),
        ({"sums": "nan"}, "--sums: 'nan'"),
        ({"shares": "50"}, "--shares: '50'"),
        ({"shares": "50-50"}, "vision:language such as 60:40"),
        ({"shares": "0:0"}, "--shares: '0:0'"),
        ({"shares": ""}, "--shares: ''"),
        ({"targets": "none"}, "unknown sparsity 'none'"),
        ({"targets": "2:4,4:4"}, "unknown sparsity '4:4'"),
        ({"shares": "0:1"}, "no share can be tried: 0:100 of 100 %"),
    ],
)
def test_what_cannot_be_tried_is_an_error(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        plan(**changes)
