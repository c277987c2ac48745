"""The rows of the report's tables, worked out from metrics, confusion matrices and pixel counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geotune.palette import Color

from .content import Part, Report


@dataclass(frozen=True)
class ClassRow:
    """How one class fared in one part of the data; NaN where a number does not exist."""

    index: int
    name: str
    color: Color
    iou: float
    f1: float
    found: float
    right: float
    pixels: int
    share: float
    confused_with: str | None


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix; `share` is of its row, NaN in an empty one."""

    pixels: int
    share: float
    correct: bool


@dataclass(frozen=True)
class ShareRow:
    """The share of one class among a part's labelled pixels."""

    name: str
    color: Color
    pixels: int
    share: float


def class_rows(report: Report, part: str) -> list[ClassRow]:
    """A row a class, in the classes' order; empty where `part` was not evaluated."""
    if part not in report.metrics and part not in report.confusion:
        return []
    metrics = report.metrics.get(part, {})
    none = [[0] * len(report.classes) for _ in report.classes]
    counts = report.confusion.get(part, none)
    total = sum(map(sum, counts))
    rows = []
    for index, name in enumerate(report.classes):
        labelled = sum(counts[index])
        predicted = sum(row[index] for row in counts)
        hits = counts[index][index]
        misses = [0 if k == index else n for k, n in enumerate(counts[index])]
        rows.append(
            ClassRow(
                index=index,
                name=name,
                color=report.colors[index],
                iou=metrics.get(f"iou/{name}", math.nan),
                f1=metrics.get(f"f1/{name}", math.nan),
                found=ratio(hits, labelled),
                right=ratio(hits, predicted),
                pixels=labelled,
                share=ratio(labelled, total),
                confused_with=report.classes[misses.index(max(misses))] if any(misses) else None,
            )
        )
    return rows


def confusion_rows(counts: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """The confusion matrix with each row's shares."""
    return [
        [Cell(pixels, ratio(pixels, sum(row)), r == c) for c, pixels in enumerate(row)]
        for r, row in enumerate(counts)
    ]


def share_rows(report: Report, part: Part) -> list[ShareRow]:
    """The classes' shares of a part, in the classes' order."""
    total = sum(part.class_counts)
    return [
        ShareRow(name, color, pixels, ratio(pixels, total))
        for name, color, pixels in zip(
            report.classes, report.colors, part.class_counts, strict=True
        )
    ]


def ratio(part: float, whole: float) -> float:
    """`part / whole`, NaN where there is no whole."""
    return part / whole if whole else math.nan
