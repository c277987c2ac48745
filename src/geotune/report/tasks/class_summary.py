"""Sentences and tables of tasks with classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geotune.report import number_format as fmt
from geotune.report.context import SPLIT_NAMES, Report, scenes_of
from geotune.report.tables import ClassRow, class_rows, confusion_rows

_RARE = 0.05

RECALL = ("Recall", "The share of the {}s labelled as a class that the model predicts as it.")
PRECISION = ("Precision", "The share of the {}s predicted as a class that are labelled as it.")


def class_result(report: Report, split: str, each: str, noun: str) -> list[str]:
    """Recall and precision in words; of more than three classes, only the best and the worst."""
    rows = class_rows(report, split, each)
    shown = _foreground(rows) if noun == "pixel" else rows
    labelled = [row for row in shown if row.count]
    if not labelled:
        return []
    prefix = f"On {scenes_of(report, split, 'held-out ')}"

    def describe(row: ClassRow) -> str:
        if math.isnan(row.precision):
            return f"never predicts {row.name}"
        text = f"finds {fmt.percent(row.recall)} of the {noun}s labelled {row.name}"
        if len(rows) > 2 and row.confused_with and row.recall < 0.9:
            text += f" (most missed ones are predicted as {row.confused_with})"
        return f"{text}, and {fmt.percent(row.precision)} of its {row.name} predictions are correct"

    if len(labelled) <= 3:
        sentences = [f"{prefix}, the model {'; it '.join(describe(row) for row in labelled)}."]
    else:
        ranked = sorted(labelled, key=lambda row: _or_zero(row.score), reverse=True)
        sentences = [
            f"{prefix}, the model is best at {ranked[0].name}: it {describe(ranked[0])}. "
            f"It is worst at {ranked[-1].name}: it {describe(ranked[-1])}."
        ]
    unlabelled = [row.name for row in rows if not row.count]
    if unlabelled:
        sentences.append(
            f"The {SPLIT_NAMES[split]} data has no {noun} labelled "
            f"{fmt.listing(unlabelled, 'or')}, "
            "so there is no score for it."
        )
    return sentences


def common_class(report: Report, split: str, each: str, noun: str) -> str:
    """A warning that accuracy is uninformative if one class covers nearly everything."""
    rows = class_rows(report, split, each)
    common = max(rows, key=lambda row: row.count, default=None)
    if common is None or not any(0 < row.share < _RARE for row in rows):
        return ""
    if common.share <= 1 - 2 * _RARE:
        return ""
    return (
        f" Overall accuracy is not informative here, because {common.name} alone covers "
        f"{fmt.percent(common.share)} of the {noun}s."
    )


def class_context(report: Report, splits: Sequence[str], each: str, title: str) -> dict[str, Any]:
    """Variables of `classes.html.j2`: class rows and confusion matrix by split."""
    return {
        "class_tables": {split: class_rows(report, split, each) for split in splits},
        "confusions": {
            split: confusion_rows(report.confusion[split])
            for split in splits
            if split in report.confusion
        },
        "each_title": title,
        "with_f1": each != "f1",
    }


def _foreground(rows: list[ClassRow]) -> list[ClassRow]:
    """All classes except the background: the class of that name, or the larger of two classes."""
    named = [row for row in rows if row.name.lower() not in ("background", "other", "none")]
    if len(named) < len(rows):
        return named
    if len(rows) == 2:
        return [min(rows, key=lambda row: row.count)]
    return rows


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
