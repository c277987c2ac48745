"""Every task's part of the page, by the `kind` that a recipe gives the task."""

from __future__ import annotations

from geotune.report.content import Report
from geotune.report.tasks import classify, density, detect, regress, segment
from geotune.report.tasks.base import TaskPage

PAGES: dict[str, TaskPage] = {
    "segment": segment.PAGE,
    "classify": classify.PAGE,
    "classify several": classify.SEVERAL,
    "regress": regress.PAGE,
    "density": density.PAGE,
    "detect": detect.PAGE,
    "detect points": detect.POINTS,
}


def page_of(report: Report) -> TaskPage:
    """What the report's task shows."""
    return PAGES[report.task]
