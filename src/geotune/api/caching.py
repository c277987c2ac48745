"""`geotune cache`: compute the features of a frozen backbone once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geotune.api.recipes import (
    OnMessage,
    RecipeLike,
    as_recipe,
    ignore_message,
)
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data, with_window
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries


@dataclass(frozen=True)
class CacheResult:
    """A feature cache on disk.

    Attributes:
        folder: of the cache.
        samples: number of windows of the recipe, each orientation counted.
        computed: how many of them this call computed.
        bytes: size of the folder.
    """

    folder: Path
    samples: int
    computed: int
    bytes: int


def cache(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> CacheResult:
    """Compute the features that `fit` with `train.cache=disk` reads and that are missing on disk.

    Args:
        recipe: a YAML file, a dict of sections, or a parsed recipe.
        overrides: changes such as `train.cache_precision=int8`.
        on_message: receives progress messages and notes.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` for an invalid recipe or data, a backbone that is not frozen, and too
    little disk space.
    """
    recipe = as_recipe(recipe, overrides, on_message)
    if recipe.train.cache == "memory":
        raise GeotuneError(
            "train.cache: found memory, which is lost when the command ends; use train.cache=disk",
            code="cache-not-possible",
            key="train.cache",
        )
    on_message("reading and checking the data")
    data = build_data(recipe, on_progress)
    on_message("building the model")
    recipe = with_window(recipe, data.window)
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.environment import pick_device, resolve_precision
        from geotune.factory.build_model import build_training, resolve_recipe
        from geotune.feature_cache.build_cache import build_cache

    recipe, _ = resolve_recipe(recipe, data)
    built = build_training(recipe, data.statistics)
    recipe, notes = resolve_precision(recipe)
    train = recipe.train.model_copy(update={"cache": "disk"})
    for note in [*notes, *built.notes]:
        on_message(f"note: {note}")
    cached = build_cache(
        built.model,
        data,
        train,
        batch_size=train.batch_size // train.accumulate_steps,
        device=pick_device(train.accelerator),
        on_message=on_message,
        on_progress=partial(on_progress, "features"),
    )
    assert cached.folder is not None
    return CacheResult(cached.folder, cached.samples, cached.computed, cached.bytes)
