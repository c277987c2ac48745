"""Temporal split: train on earlier dates, test on later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from geotune.config.split_options import DateSplitOptions
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, check_not_empty
from geotune.data.splits.groups import group_of
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_by_date(
    scenes: Sequence[Scene], options: DateSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Train on scenes before `val`, validate from `val` on, and test from `test` on.

    The date comes from the file's tags or name (see `raster.tags.acquisition_date`), or from `by`
    (see `group_of`), as `20181013` or `2018-10-13`. Raises `GeotuneError` for scenes without a
    date, and for an empty split.
    """
    del failed
    val, test = options.val, options.test
    dates = {scene.name: _date(scene, options.by) for scene in scenes}
    undated = [scene.raster.path for scene in scenes if dates[scene.name] is None]
    if undated:
        raise GeotuneError(
            f"{undated[0]}: no date found, neither in a tag such as ACQUISITIONDATETIME nor in its "
            f"name ({len(undated)} such: {join_some([str(path) for path in undated])}); set "
            "data.split.by to an expression that extracts it from the name",
            code="metadata-missing",
            key="data.split.by",
            file=undated[0],
        )
    splits: Splits = {"train": [], "val": [], "test": []}
    for scene in scenes:
        day = dates[scene.name]
        assert day is not None
        split = "train" if day < val else "val" if test is None or day < test else "test"
        splits[split].append(replace(scene, group=day.isoformat()))
    if test is not None and not splits["test"]:
        last = max(day for day in dates.values() if day is not None)
        raise GeotuneError(
            f"data.split.test: no scene on or after {test}; the last one is of {last}",
            code="split-empty",
            key="data.split.test",
        )
    return check_not_empty(splits, scenes)


def _date(scene: Scene, by: str | None) -> date | None:
    if by is None:
        return scene.raster.acquired
    text = group_of(scene, by)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise GeotuneError(
            f"{scene.raster.path}: data.split.by extracts {text!r}; expected a date such as "
            "20181013 or 2018-10-13",
            code="split-groups",
            key="data.split.by",
            file=scene.raster.path,
        ) from error
