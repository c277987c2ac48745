"""What tasks with classes say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.split_names import PARTS, scenes_of
from geotune.report.tables import ClassRow, class_rows, confusion_rows

_RARE = 0.05

FOUND = ("Found (recall)", "Of the {}s labelled as a class, the share that the model marks as it.")
RIGHT = (
    "Right (precision)",
    "Of the {}s that the model marks as a class, the share that is labelled as it.",
)


def class_result(report: Report, part: str, each: str, noun: str) -> list[str]:
    """What the model finds of the classes, at most of the best and the worst of many."""
    rows = class_rows(report, part, each)
    told = _of_interest(rows) if noun == "pixel" else rows
    seen = [row for row in told if row.count]
    if not seen:
        return []
    where = f"On {scenes_of(report, part, 'held-out ')}"

    def found(row: ClassRow) -> str:
        if math.isnan(row.right):
            return f"marks nothing as {row.name}, and so misses all of it"
        text = f"finds {fmt.percent(row.found)} of the {noun}s labelled {row.name}"
        if len(rows) > 2 and row.confused_with and row.found < 0.9:
            text += f" (what it misses it mostly takes for {row.confused_with})"
        return f"{text}, and {fmt.percent(row.right)} of what it marks as {row.name} is right"

    if len(seen) <= 3:
        said = [f"{where}, the model {'; it '.join(found(row) for row in seen)}."]
    else:
        ranked = sorted(seen, key=lambda row: _or_zero(row.score), reverse=True)
        said = [
            f"{where}, the model does best at {ranked[0].name}: it {found(ranked[0])}. "
            f"It does worst at {ranked[-1].name}: it {found(ranked[-1])}."
        ]
    unseen = [row.name for row in rows if not row.count]
    if unseen:
        said.append(
            f"The {PARTS[part]} data has no {noun} labelled {fmt.listing(unseen, 'or')}: "
            "nothing can be said of that."
        )
    return said


def common_class(report: Report, part: str, each: str, noun: str) -> str:
    """A warning where the share of right answers says little, for one class is nearly all."""
    rows = class_rows(report, part, each)
    common = max(rows, key=lambda row: row.count, default=None)
    if common is None or not any(0 < row.share < _RARE for row in rows):
        return ""
    if common.share <= 1 - 2 * _RARE:
        return ""
    return (
        f" The share of right {noun}s says little here, for {common.name} alone covers "
        f"{fmt.percent(common.share)} of them."
    )


def class_context(report: Report, parts: Sequence[str], each: str, title: str) -> dict[str, Any]:
    """For `classes.html.j2`: rows of the classes and the confusion matrix, by part."""
    return {
        "class_tables": {part: class_rows(report, part, each) for part in parts},
        "confusions": {
            part: confusion_rows(report.confusion[part])
            for part in parts
            if part in report.confusion
        },
        "each_title": title,
        "with_f1": each != "f1",
    }


def _of_interest(rows: list[ClassRow]) -> list[ClassRow]:
    """All classes but the background: the one called so, or the more common of two."""
    named = [row for row in rows if row.name.lower() not in ("background", "other", "none")]
    if len(named) < len(rows):
        return named
    if len(rows) == 2:
        return [min(rows, key=lambda row: row.count)]
    return rows


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
