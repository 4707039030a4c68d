import json

import pytest

from dualmask.families.edit.infer.operating_point import FILE, Decision, Measured, OperatingPoint
from dualmask.families.edit.infer.request import Request

CAREFUL, BOLD = OperatingPoint(edit_threshold=0.8), OperatingPoint(edit_threshold=0.3, preference=0.5)
DECISION = Decision(BOLD, (Measured(CAREFUL, 0.8, 0.2, 0.5, 0.999), Measured(BOLD, 0.6, 0.4, 0.55, 0.997)))


def test_it_comes_back_from_its_file(tmp_path):
    (tmp_path / FILE).write_text(DECISION.text)
    assert Decision.read(tmp_path) == DECISION
    assert Decision.read(tmp_path / "empty") == Decision()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 9}', json.dumps({"format": 1, "chosen": {"x": 1}, "curve": []})]
)
def test_what_cannot_be_read_is_said(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"decision\.json cannot be read"):
        Decision.read(tmp_path)


def test_the_point_of_a_precision_is_the_one_that_finds_most():
    assert DECISION.at_precision(0.5) == BOLD
    assert DECISION.at_precision(0.7) == CAREFUL
    with pytest.raises(ValueError, match=r"precision 0.9 .* at most 0.800"):
        DECISION.at_precision(0.9)
    with pytest.raises(ValueError, match="no curve"):
        Decision().at_precision(0.5)


def test_a_request_has_its_own_thresholds_or_those_of_the_model():
    request = Request([300], "auto", edit_threshold=0.9).at(BOLD)
    assert request.point == OperatingPoint(edit_threshold=0.9, preference=0.5)


@pytest.mark.parametrize(
    ("name", "value"), [("gate_threshold", 1.5), ("insert_threshold", -1), ("preference", float("inf"))]
)
def test_impossible_thresholds_are_named(name, value):
    with pytest.raises(ValueError, match=name.replace("_", " ")):
        OperatingPoint(**{name: value})
