"""Making a training fit into memory before it begins."""

from __future__ import annotations

from collections.abc import Callable

from geotune.api.budget_search import as_overrides, with_changes
from geotune.api.planning import Planner
from geotune.config import Recipe
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.factory.build_model import resolve_recipe
from geotune.report.number_format import size


def keep_to_budget(
    recipe: Recipe, data: DataModule, say: Callable[[str], None]
) -> tuple[Recipe, list[str]]:
    """The recipe changed so that it keeps to its `train.memory_budget`, and what was changed.

    Raises `GeotuneError` where nothing does.
    """
    budget = recipe.train.memory_budget
    assert budget is not None
    say(f"looking for settings that need at most {size(budget)}")
    completed, _ = resolve_recipe(recipe, data)
    fitting = Planner(completed, data.statistics.bands).fit(completed, budget, alternatives=False)
    if not fitting.proposals:
        part, place, held = fitting.held_up_by
        changes = " ".join(as_overrides(fitting.smallest.changes))
        raise GeotuneError(
            f"train.memory_budget {size(budget)}: nothing fits; the smallest that was found needs "
            f"{size(fitting.smallest.bytes)} ({changes or 'as it is'}), held up by {size(held)} of "
            f"{part.replace('_', ' ')} ({place}); allow more, or choose a smaller data.window, "
            "backbone or decoder"
        )
    chosen = fitting.proposals[0]
    if not chosen.changes:
        return recipe, []
    changed = ", ".join(as_overrides(chosen.changes))
    notes = [f"train.memory_budget {size(budget)}: {changed}; predicted {size(chosen.bytes)}"]
    return with_changes(recipe, chosen.changes), [*notes, *chosen.notes]
