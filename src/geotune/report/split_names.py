"""The parts of the data, as people call them."""

from __future__ import annotations

from geotune.report import number_format as fmt
from geotune.report.context import Report

PARTS = {"train": "training", "val": "validation", "test": "test"}


def evaluated(report: Report) -> list[str]:
    """The parts that have metrics, the one that says most first."""
    return [part for part in ("test", "val") if part in report.metrics or part in report.confusion]


def scenes_of(report: Report, part: str, kind: str) -> str:
    """`the held-out scene durban`, `5 scenes`."""
    if part not in report.data:
        return f"the {PARTS[part]} data"
    scenes = list(report.data[part].scenes)
    if len(scenes) == 1:
        return f"the {kind}{report.unit} {scenes[0]}"
    if len(scenes) <= 3:
        return f"the {kind}{report.unit}s {fmt.listing(scenes)}"
    return f"{'the ' if kind else ''}{len(scenes)} {kind}{report.unit}s"
