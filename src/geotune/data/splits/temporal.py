"""A split by date: the past trains, the future tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, require_splits
from geotune.data.splits.groups import group_of
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_by_date(
    scenes: Sequence[Scene],
    *,
    val: date,
    test: date | None = None,
    by: str | None = None,
    gone: Sequence[str] = (),
) -> Splits:
    """Scenes before the day `val` train, those from it on validate, those from `test` on test.

    The day comes from the files' tags or names (see `raster.tags.acquisition_date`), or from what `by` finds
    (see `group_of`): `20181013` or `2018-10-13`. Raises `GeotuneError` for scenes without a day,
    and for an empty part.
    """
    del gone  # no scene is named
    days = {scene.name: _day(scene, by) for scene in scenes}
    silent = [scene.raster.path for scene in scenes if days[scene.name] is None]
    if silent:
        raise GeotuneError(
            f"{silent[0]}: says no date, neither in a tag such as ACQUISITIONDATETIME nor in its "
            f"name ({len(silent)} such: {join_some([str(path) for path in silent])}); say with "
            "data.split.by where in the name it stands"
        )
    parts: Splits = {"train": [], "val": [], "test": []}
    for scene in scenes:
        day = days[scene.name]
        assert day is not None
        part = "train" if day < val else "val" if test is None or day < test else "test"
        parts[part].append(replace(scene, group=day.isoformat()))
    if test is not None and not parts["test"]:
        last = max(day for day in days.values() if day is not None)
        raise GeotuneError(
            f"data.split.test {test}: no scene is of that day or later, the last is of {last}"
        )
    return require_splits(parts, scenes)


def _day(scene: Scene, by: str | None) -> date | None:
    if by is None:
        return scene.raster.acquired
    text = group_of(scene, by)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise GeotuneError(
            f"{scene.raster.path}: data.split.by finds {text!r}; expected a date such as 20181013 "
            "or 2018-10-13"
        ) from error
