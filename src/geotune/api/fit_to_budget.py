"""Change a recipe to fit its memory budget before the training starts."""

from __future__ import annotations

from collections.abc import Callable

from geotune.api.budget_search import as_overrides, with_changes
from geotune.api.planning import Planner
from geotune.config import Recipe
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.factory.build_model import resolve_recipe
from geotune.report.number_format import size


def fit_to_budget(
    recipe: Recipe, data: DataModule, on_message: Callable[[str], None]
) -> tuple[Recipe, list[str]]:
    """Return the recipe changed to fit its `train.memory_budget`, and notes on the changes.

    Raises `GeotuneError` if no setting fits.
    """
    budget = recipe.train.memory_budget
    assert budget is not None
    on_message(f"searching for settings that need at most {size(budget)}")
    completed, _ = resolve_recipe(recipe, data)
    fitting = Planner(completed, data.statistics.bands).search(
        completed, budget, alternatives=False
    )
    if not fitting.proposals:
        part, place, held = fitting.largest_component
        changes = " ".join(as_overrides(fitting.smallest.changes))
        raise GeotuneError(
            f"train.memory_budget {size(budget)}: no setting fits; the smallest needs "
            f"{size(fitting.smallest.bytes)} ({changes or 'unchanged'}), of which {size(held)} are "
            f"{part.replace('_', ' ')} ({place}); raise the budget, or choose a smaller "
            "data.window, backbone or decoder",
            code="memory-budget",
            key="train.memory_budget",
        )
    chosen = fitting.proposals[0]
    if not chosen.changes:
        return recipe, []
    changed = ", ".join(as_overrides(chosen.changes))
    notes = [f"train.memory_budget {size(budget)}: {changed}; predicted {size(chosen.bytes)}"]
    return with_changes(recipe, chosen.changes), [*notes, *chosen.notes]
