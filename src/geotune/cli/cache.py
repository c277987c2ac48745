"""`geotune cache`."""

from __future__ import annotations

from pathlib import Path

from geotune.cli.console import Json, counting, out, print_json, recipe_of, say


def cache(recipe: Path, *overrides: str, as_json: Json = False) -> None:
    """Compute the features of a backbone that never changes, for trainings to read.

    Only what is not there yet is computed; `geotune fit` with train.cache=disk does the same first.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as train.cache_precision=int8 train.cache_limit=20GB.
    """
    read = recipe_of(recipe, overrides)
    from geotune.api.caching import cache_recipe

    with counting("features") as progress:
        result = cache_recipe(read, say=say, progress=progress)
    if as_json:
        print_json(vars(result))
        return
    out().print(
        f"{result.folder}: {result.samples} windows, {result.computed} of them computed now; "
        f"{result.bytes / 1e6:,.1f} MB"
    )
    out().print("train from it with train.cache=disk")
