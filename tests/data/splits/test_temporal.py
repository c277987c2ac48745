"""Temporal split: train on earlier dates, test on later ones."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from geotune.config.split_options import DateSplitOptions
from geotune.data.scenes.scene import Scene
from geotune.data.splits.temporal import split_by_date
from helpers.errors import raises
from helpers.lazy_scenes import names, scenes


def dated(days: Sequence[str]) -> list[Scene]:
    return [
        replace(one, raster=replace(one.raster, acquired=date.fromisoformat(day)))
        for one, day in zip(scenes([f"s{i}" for i in range(len(days))]), days, strict=True)
    ]


def test_later_dates_are_held_out() -> None:
    listed = dated(["2019-12-31", "2020-01-01", "2020-06-30", "2020-07-01", "2018-01-01"])
    splits = split_by_date(listed, DateSplitOptions(val=date(2020, 1, 1), test=date(2020, 7, 1)))
    assert names(splits) == {"train": ["s0", "s4"], "val": ["s1", "s2"], "test": ["s3"]}
    with raises("split-empty", key="data.split.test", mentions=["2021-01-01", "2020-07-01"]):
        split_by_date(listed, DateSplitOptions(val=date(2020, 1, 1), test=date(2021, 1, 1)))
    with raises("split-empty", key="data.split", mentions=["training"]):
        split_by_date(listed, DateSplitOptions(val=date(2010, 1, 1)))


def test_date_can_come_from_the_name() -> None:
    listed = scenes(["x-20180101", "y-2020-05-01", "z-20210101"])
    splits = split_by_date(
        listed, DateSplitOptions(val=date(2019, 1, 1), test=date(2021, 1, 1), by="-(.*)$")
    )
    assert [len(splits[split]) for split in ("train", "val", "test")] == [1, 1, 1]
    with raises("split-groups", key="data.split.by", file="x-20180101.tif", mentions=["'x'"]):
        split_by_date(listed, DateSplitOptions(val=date(2019, 1, 1), by="^(.)"))
    with raises("metadata-missing", key="data.split.by", file="x-20180101.tif"):
        split_by_date(listed, DateSplitOptions(val=date(2019, 1, 1)))
