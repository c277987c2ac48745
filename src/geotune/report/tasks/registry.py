"""Every task's part of the page, by the `kind` that a recipe gives the task."""

from __future__ import annotations

from geotune.report.context import Report
from geotune.report.tasks import (
    classify_page,
    density_page,
    detect_page,
    regress_page,
    segment_page,
)
from geotune.report.tasks.base import TaskPage

PAGES: dict[str, TaskPage] = {
    "segment": segment_page.PAGE,
    "classify": classify_page.PAGE,
    "classify several": classify_page.SEVERAL,
    "regress": regress_page.PAGE,
    "density": density_page.PAGE,
    "detect": detect_page.PAGE,
    "detect points": detect_page.POINTS,
}


def page_of(report: Report) -> TaskPage:
    """What the report's task shows."""
    return PAGES[report.task]
