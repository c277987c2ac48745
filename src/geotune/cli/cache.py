"""`geotune cache`."""

from __future__ import annotations

from pathlib import Path

from geotune.cli.console import Json, message, out, print_json, show_progress


def cache(recipe: Path, *overrides: str, as_json: Json = False) -> None:
    """Compute the features of a frozen backbone for later training runs.

    Only missing features are computed. geotune fit with train.cache=disk does the same first.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes, such as train.cache_precision=int8 train.cache_limit=20GB.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.caching import cache as cache_recipe
        result = cache_recipe(recipe, overrides, on_message=message, on_progress=on_progress)
    if as_json:
        print_json(vars(result))
        return
    out().print(
        f"{result.folder}: {result.samples} windows, {result.computed} newly computed; "
        f"{result.bytes / 1e6:,.1f} MB"
    )
    out().print("use it with train.cache=disk")
