"""The rows of the report's tables, worked out from metrics, confusion matrices and counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geotune.report.context import Report, SplitSummary
from geotune.utils.colors import Color


@dataclass(frozen=True)
class ClassRow:
    """How one class fared in one part of the data; NaN where a number does not exist.

    `score` is the metric that the task has of each class, `count` what is labelled of it.
    """

    index: int
    name: str
    color: Color
    score: float
    f1: float
    found: float
    right: float
    count: int
    share: float
    confused_with: str | None


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix; `share` is of its row, NaN in an empty one."""

    count: int
    share: float
    correct: bool


@dataclass(frozen=True)
class ShareRow:
    """The share of one class among all that is labelled in a part."""

    name: str
    color: Color
    count: int
    share: float


def class_rows(report: Report, part: str, each: str = "iou") -> list[ClassRow]:
    """A row a class, in the classes' order; empty where `part` was not evaluated.

    `each` is the metric of each class. Counts come from the confusion matrix or, where an answer
    may name several classes, from the decisions about each.
    """
    if part not in report.metrics and part not in report.confusion:
        return []
    metrics = report.metrics.get(part, {})
    decisions = report.details.get("decisions", {}).get(part)
    none = [[0] * len(report.classes) for _ in report.classes]
    counts = report.confusion.get(part, none)
    rows = []
    for index, name in enumerate(report.classes):
        if decisions is not None:
            (_, wrong), (missed, hits) = decisions[index]
            labelled, marked, total = missed + hits, wrong + hits, sum(map(sum, decisions[index]))
            misses: list[int] = []
        else:
            labelled, marked = sum(counts[index]), sum(row[index] for row in counts)
            hits, total = counts[index][index], sum(map(sum, counts))
            misses = [0 if k == index else n for k, n in enumerate(counts[index])]
        rows.append(
            ClassRow(
                index=index,
                name=name,
                color=report.colors[index],
                score=metrics.get(f"{each}/{name}", math.nan),
                f1=metrics.get(f"f1/{name}", math.nan),
                found=ratio(hits, labelled),
                right=ratio(hits, marked),
                count=labelled,
                share=ratio(labelled, total),
                confused_with=report.classes[misses.index(max(misses))] if any(misses) else None,
            )
        )
    return rows


def confusion_rows(counts: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """The confusion matrix with each row's shares."""
    return [
        [Cell(count, ratio(count, sum(row)), r == c) for c, count in enumerate(row)]
        for r, row in enumerate(counts)
    ]


def share_rows(report: Report, part: SplitSummary) -> list[ShareRow]:
    """The classes' shares of a part, in the classes' order."""
    total = sum(part.class_counts)
    return [
        ShareRow(name, color, count, ratio(count, total))
        for name, color, count in zip(report.classes, report.colors, part.class_counts, strict=True)
    ]


def ratio(part: float, whole: float) -> float:
    """`part / whole`, NaN where there is no whole."""
    return part / whole if whole else math.nan
