"""The numbers of the tables."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from geotune.report.context import Report
from geotune.report.tables import class_rows, confusion_rows, share_rows


def test_class_rows(report: Report) -> None:
    background, ship = class_rows(report, "test")
    assert (ship.count, background.count) == (150, 19850)
    assert ship.share == pytest.approx(150 / 20000)
    assert ship.recall == pytest.approx(92 / 150)
    assert ship.precision == pytest.approx(92 / 142)
    assert ship.confused_with == "background"
    assert (ship.score, ship.f1) == (0.44, 0.61)
    assert math.isnan(background.score), "not among the metrics"
    assert class_rows(report, "train") == []


def test_absent_class_has_nan_scores(report: Report) -> None:
    rows = class_rows(replace(report, confusion={"val": [[10, 0], [0, 0]]}), "val")
    assert math.isnan(rows[1].recall)
    assert math.isnan(rows[1].precision)
    assert rows[1].confused_with is None


def test_confusion_shares_are_relative_to_the_row() -> None:
    cells = confusion_rows([[3, 1], [0, 0]])
    assert [cell.share for cell in cells[0]] == [0.75, 0.25]
    assert [cell.correct for row in cells for cell in row] == [True, False, False, True]
    assert all(math.isnan(cell.share) for cell in cells[1])


def test_class_shares_of_a_split(report: Report) -> None:
    rows = share_rows(report, report.data["val"])
    assert [row.share for row in rows] == [0.99, 0.01]


@pytest.mark.parametrize(
    "change",
    [
        {"colors": [(0, 0, 0)]},
        {"confusion": {"val": [[1, 2]]}},
        {"confusion": {"val": [[1, 2], [3]]}},
        {"classes": ["a", "b", "c"], "colors": [(0, 0, 0)] * 3, "confusion": {}},
    ],
)
def test_inconsistent_class_counts_raise(report: Report, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"classes|matrix"):
        replace(report, **change)  # type: ignore[arg-type]


def test_multilabel_decisions_have_class_rows(report: Report) -> None:
    multilabel = replace(
        report, confusion={}, details={"decisions": {"test": [[[5, 1], [2, 4]], [[0, 0], [3, 9]]]}}
    )
    first, second = class_rows(multilabel, "test", "ap")
    assert (first.count, first.share) == (6, 0.5)
    assert (first.recall, first.precision) == (4 / 6, 4 / 5)
    assert (second.recall, second.precision) == (9 / 12, 1)
