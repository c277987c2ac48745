"""The metric that ranks the runs of each recipe, and the page section of its task."""

from __future__ import annotations

from collections.abc import Sequence

from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.suite import Suite
from geotune.errors import RecipeError
from geotune.factory.build_model import build_task
from geotune.report.from_run import page_name
from geotune.report.tasks.base import TaskPage, find_page
from geotune.utils.text import suggest


def objectives_of(
    suite: Suite, specs: Sequence[RunSpec]
) -> tuple[dict[str, Objective], dict[str, TaskPage]]:
    """The objective and the page section of each recipe, by its name.

    Raises `RecipeError` for a metric that the task does not have.
    """
    objectives: dict[str, Objective] = {}
    pages: dict[str, TaskPage] = {}
    for spec in specs:
        name = spec.labels["recipe"]
        task = build_task(spec.recipe)
        requested = suite.recipes[name].metric
        metric = task.main_metric if requested is None else requested
        if metric not in task.metric_names:
            raise RecipeError(
                f"recipes.{name}.metric: {metric!r} is not a metric of task.kind "
                f"{spec.recipe.task.kind}; {suggest(metric, task.metric_names)}",
                code="suite-invalid",
                key=f"recipes.{name}.metric",
            )
        lower = metric in task.lower_is_better
        objectives.setdefault(name, Objective(metric, lower))
        pages.setdefault(name, find_page(page_name(spec.recipe)))
    return objectives, pages
