"""Recipes as the public functions take them: a file, plain values, or a parsed recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from geotune.config import Recipe, apply_overrides, load_recipe, parse_recipe
from geotune.errors import GeotuneError

RecipeLike = Recipe | Path | str | Mapping[str, Any]
"""A parsed recipe, the path of a YAML file, or a dict of its sections."""

OnMessage = Callable[[str], None]
"""Receives one line of text for the user at a time."""


def ignore_message(text: str) -> None:
    """Drop a message."""


def as_recipe(
    recipe: RecipeLike, overrides: Sequence[str] = (), on_message: OnMessage = ignore_message
) -> Recipe:
    """Parse a recipe and apply `key=value` overrides; notes go to `on_message`.

    Raises `RecipeError` for an unreadable file, an unknown key or an invalid value.
    """
    if isinstance(recipe, Recipe) and not overrides:
        return recipe
    if isinstance(recipe, str | Path):
        parsed, notes = load_recipe(Path(recipe), overrides)
    else:
        values: dict[str, Any] = (
            recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else deepcopy(dict(recipe))
        )
        notes = apply_overrides(values, overrides)
        parsed = parse_recipe(values)
    for note in notes:
        on_message(f"note: {note}")
    return parsed


def recipe_name(recipe: RecipeLike) -> str:
    """The stem of the recipe's file, else `recipe`."""
    return Path(recipe).stem if isinstance(recipe, str | Path) else "recipe"


def pretraining_error(run: Path | str) -> GeotuneError:
    """The error for predictions of a pretraining."""
    return GeotuneError(
        f"{run}: was pretrained to reconstruct images and predicts nothing else; train a task from "
        "it: geotune fit RECIPE with backbone.weights or --from",
        code="option-not-applicable",
        key="task.kind",
    )
