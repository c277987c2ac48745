"""By which figure the runs of each recipe are judged, and what a page says of it."""

from __future__ import annotations

from collections.abc import Sequence

from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.suite import Suite, nearest
from geotune.errors import RecipeError
from geotune.factory.build_model import build_task
from geotune.report.from_run import page_name
from geotune.report.tasks.base import TaskPage, find_page


def objectives_of(
    suite: Suite, cells: Sequence[RunSpec]
) -> tuple[dict[str, Objective], dict[str, TaskPage]]:
    """By recipe's name its goal, and its task's part of a page.

    Raises `RecipeError` for a metric that a task does not have.
    """
    goals: dict[str, Objective] = {}
    pages: dict[str, TaskPage] = {}
    for cell in cells:
        name = cell.labels["recipe"]
        task = build_task(cell.recipe)
        asked = suite.recipes[name].metric
        metric = task.main_metric if asked is None else asked
        if metric not in task.metric_names:
            raise RecipeError(
                f"recipes.{name}.metric: {metric!r} is no metric of task.kind "
                f"{cell.recipe.task.kind}; {nearest(metric, task.metric_names)}"
            )
        lower = metric in task.lower_is_better
        goals.setdefault(name, Objective(metric, lower))
        pages.setdefault(name, find_page(page_name(cell.recipe)))
    return goals, pages
