"""Dates: the past trains, the future tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pytest

from geotune.data.scenes.scene import Scene
from geotune.data.splits.temporal import split_by_date
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scenes


def dated(days: Sequence[str]) -> list[Scene]:
    return [
        replace(one, raster=replace(one.raster, acquired=date.fromisoformat(day)))
        for one, day in zip(scenes([f"s{i}" for i in range(len(days))]), days, strict=True)
    ]


def test_the_past_trains_and_the_future_tests() -> None:
    listed = dated(["2019-12-31", "2020-01-01", "2020-06-30", "2020-07-01", "2018-01-01"])
    parts = split_by_date(listed, val=date(2020, 1, 1), test=date(2020, 7, 1))
    assert names(parts) == {"train": ["s0", "s4"], "val": ["s1", "s2"], "test": ["s3"]}
    with pytest.raises(GeotuneError, match=r"data\.split\.test 2021-01-01: no scene .* 2020-07-01"):
        split_by_date(listed, val=date(2020, 1, 1), test=date(2021, 1, 1))
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_by_date(listed, val=date(2010, 1, 1))


def test_the_date_may_stand_in_the_name() -> None:
    listed = scenes(["x-20180101", "y-2020-05-01", "z-20210101"])
    parts = split_by_date(listed, val=date(2019, 1, 1), test=date(2021, 1, 1), by="-(.*)$")
    assert [len(parts[part]) for part in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(GeotuneError, match=r"x-20180101\.tif: .* finds 'x'; expected a date"):
        split_by_date(listed, val=date(2019, 1, 1), by="^(.)")
    with pytest.raises(GeotuneError, match=r"x-20180101\.tif: says no date"):
        split_by_date(listed, val=date(2019, 1, 1))
