"""Rows of the report's tables, computed from metrics, confusion matrices and counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geotune.report.context import Report, SplitSummary
from geotune.utils.colors import Color


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class on one split; undefined ones are NaN.

    `score` is the task's metric per class, `count` the number of labelled units, such as pixels.
    """

    index: int
    name: str
    color: Color
    score: float
    f1: float
    recall: float
    precision: float
    count: int
    share: float
    confused_with: str | None


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix; `share` is relative to its row, NaN if the row is empty."""

    count: int
    share: float
    correct: bool


@dataclass(frozen=True)
class ShareRow:
    """The share of one class in the labels of a split."""

    name: str
    color: Color
    count: int
    share: float


def class_rows(report: Report, split: str, each: str = "iou") -> list[ClassRow]:
    """One row per class; empty if `split` was not evaluated.

    `each` is the metric per class. Counts come from the confusion matrix, or from the decisions per
    class if the task is multilabel.
    """
    if split not in report.metrics and split not in report.confusion:
        return []
    metrics = report.metrics.get(split, {})
    decisions = report.details.get("decisions", {}).get(split)
    zeros = [[0] * len(report.classes) for _ in report.classes]
    counts = report.confusion.get(split, zeros)
    rows = []
    for index, name in enumerate(report.classes):
        if decisions is not None:
            (_, false_positives), (missed, hits) = decisions[index]
            labelled, predicted = missed + hits, false_positives + hits
            total = sum(map(sum, decisions[index]))
            misses: list[int] = []
        else:
            labelled, predicted = sum(counts[index]), sum(row[index] for row in counts)
            hits, total = counts[index][index], sum(map(sum, counts))
            misses = [0 if k == index else n for k, n in enumerate(counts[index])]
        rows.append(
            ClassRow(
                index=index,
                name=name,
                color=report.colors[index],
                score=metrics.get(f"{each}/{name}", math.nan),
                f1=metrics.get(f"f1/{name}", math.nan),
                recall=ratio(hits, labelled),
                precision=ratio(hits, predicted),
                count=labelled,
                share=ratio(labelled, total),
                confused_with=report.classes[misses.index(max(misses))] if any(misses) else None,
            )
        )
    return rows


def confusion_rows(counts: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """The confusion matrix with counts and shares of each row."""
    return [
        [Cell(count, ratio(count, sum(row)), r == c) for c, count in enumerate(row)]
        for r, row in enumerate(counts)
    ]


def share_rows(report: Report, split: SplitSummary) -> list[ShareRow]:
    """The share of each class in a split."""
    counts = split.class_counts
    total = sum(counts)
    return [
        ShareRow(name, color, count, ratio(count, total))
        for name, color, count in zip(
            report.classes, report.colors, split.class_counts, strict=True
        )
    ]


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, NaN if the denominator is 0."""
    return numerator / denominator if denominator else math.nan
