"""The sparsity of ONNX files is read from their own weights, wherever these are stored."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.exporters.material import FORMS, TWO_FOUR, small, sparse_OI, write_form
from vlmc.exporters.onnx.sparsity import check_onnx, label
from vlmc.runtime.errors import CheckFailed, InputError
from vlmc.runtime.sparsity import SparsityPattern


@pytest.mark.parametrize("form", FORMS)
def test_axis_of_reduction_is_found(form: str, tmp_path: Path) -> None:
    [report] = check_onnx(write_form(form, sparse_OI(), tmp_path / "a.onnx"), TWO_FOUR)
    assert report.violation is None
    assert report.sparsity == 0.5
    assert (report.layer, report.part, report.pattern, report.columns) == ("w", "a", "2:4", 8)


@pytest.mark.parametrize("form", FORMS)
def test_first_broken_group_is_named(form: str, tmp_path: Path) -> None:
    weight = sparse_OI()
    weight[3, 4:8] = 1.0
    weight[5, 0:4] = 1.0
    [report] = check_onnx(write_form(form, weight, tmp_path / "a.onnx"), TWO_FOUR)
    row = 6 if form == "conv" else 3  # the kernel has two taps for every row
    assert report.violation == f"row {row}, columns 4-7 hold 4 non-zero weights, 2 allowed"


@pytest.mark.parametrize("form", FORMS)
def test_sparsity_along_the_wrong_axis_does_not_count(form: str, tmp_path: Path) -> None:
    weight = np.ones((8, 8), np.float32)
    weight[::2] = 0  # 2:4 along the outputs
    [report] = check_onnx(write_form(form, weight, tmp_path / "a.onnx"), TWO_FOUR)
    assert report.violation is not None


def test_other_patterns(tmp_path: Path) -> None:
    path = write_form("matmul", sparse_OI(6, 16), tmp_path / "a.onnx")
    assert check_onnx(path, SparsityPattern.parse("50%"))[0].violation is None
    assert check_onnx(path, SparsityPattern.parse("4:8"))[0].violation is None
    assert check_onnx(path, SparsityPattern.parse("1:4"))[0].violation is not None
    assert (
        check_onnx(path, SparsityPattern.parse("60%"))[0].violation
        == "row 0, columns 0-15 hold 8 non-zero weights, 7 allowed"
    )
    assert check_onnx(path, SparsityPattern.parse("2:5"))[0].violation == "16 columns do not fall into groups of 5"


def test_promises_stand_in_the_file_and_a_broken_one_is_found(tmp_path: Path, traced: Path) -> None:
    spec = small()
    shutil.copyfile(traced, tmp_path / "a.onnx")
    label(tmp_path / "a.onnx", spec.sparse)
    reports = check_onnx(tmp_path / "a.onnx")
    assert [(report.layer, report.rows, report.columns, report.violation) for report in reports] == [
        ("rows", 32, 16, None),
        ("sequence", 16, 32, None),
    ]
    model = onnx.load(tmp_path / "a.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "rows.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[7, 4:8] = 1.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "a.onnx")
    broken, whole = check_onnx(tmp_path / "a.onnx")
    assert broken.violation == "row 7, columns 4-7 hold 4 non-zero weights, 2 allowed"
    assert whole.violation is None


def test_promised_layer_that_is_not_there_fails(tmp_path: Path, traced: Path) -> None:
    shutil.copyfile(traced, tmp_path / "a.onnx")
    with pytest.raises(CheckFailed, match=r"a\.onnx has no weight of elsewhere, whose sparsity 2:4 is promised"):
        label(tmp_path / "a.onnx", {"elsewhere": TWO_FOUR})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "unreadable sparsity metadata"),
        ('{"a": {"pattern": "2:4"}}', "unreadable sparsity metadata"),
        ('{"a": {"pattern": "2:4", "axis": 0, "initializer": "gone"}}', "has no weight gone"),
        ('{"a": {"pattern": "2:x", "axis": 0, "initializer": "w"}}', "unknown sparsity '2:x'"),
        ('{"a": {"pattern": "2:4", "axis": 1, "initializer": "w"}}', "is summed over axis 0, not 1 as its metadata says"),
        ('{"a": {"pattern": "2:4", "axis": "x", "initializer": "w"}}', "is summed over axis 0, not x as its metadata says"),
    ],
)
def test_metadata_edited_by_hand_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = write_form("matmul", sparse_OI(), tmp_path / "a.onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"vlmc.sparsity": text})
    onnx.save(model, path)
    with pytest.raises(InputError, match=message):
        check_onnx(path)


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x07"])
def test_file_that_is_no_onnx_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx cannot be read as ONNX"):
        check_onnx(tmp_path / "a.onnx", TWO_FOUR)
    with pytest.raises(InputError, match="no ONNX file at"):
        check_onnx(tmp_path / "b.onnx", TWO_FOUR)
