"""`geotune cache`: compute the features of a constant backbone once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geotune.config import Recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data, with_window


@dataclass(frozen=True)
class CacheResult:
    """What is kept.

    Attributes:
        folder: where.
        samples: windows of the recipe, each way of laying one counted.
        computed: how many of them were not there before.
        bytes: that the folder takes.
    """

    folder: Path
    samples: int
    computed: int
    bytes: int


def cache_recipe(
    recipe: Recipe,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CacheResult:
    """Compute what `geotune fit` with `train.cache=disk` will read, as far as it is not there.

    `say` gets a line at a time for the user, `progress` windows done and to be done. Raises
    `GeotuneError` for what is wrong.
    """
    if recipe.train.cache == "memory":
        raise GeotuneError(
            "train.cache: found memory, which is gone when the command ends; use train.cache=disk"
        )
    train = recipe.train.model_copy(update={"cache": "disk"})
    say("reading and checking the data")
    data = build_data(recipe)
    say("building the model")
    recipe = with_window(recipe, data.window)
    from geotune.api.environment import pick_device
    from geotune.factory.build_model import build_training, resolve_recipe
    from geotune.feature_cache.build_cache import build_cache

    recipe, _ = resolve_recipe(recipe, data)
    built = build_training(recipe, data.statistics)
    for note in built.notes:
        say(f"note: {note}")
    cached = build_cache(
        built.model,
        data,
        train,
        batch_size=train.batch_size // train.accumulate_steps,
        device=pick_device(train.accelerator),
        say=say,
        progress=progress,
    )
    assert cached.folder is not None
    return CacheResult(cached.folder, cached.samples, cached.computed, cached.bytes)
