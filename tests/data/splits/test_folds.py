"""Folds: what is held out is held out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.data.splits.folds import split_into_folds
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scenes

CITIES = [
    f"{city}_{i}" for city, count in (("bern", 1), ("lima", 4), ("oslo", 2)) for i in range(count)
]


def test_each_region_is_tested_once() -> None:
    tested: list[str] = []
    for fold in (1, 2, 3):
        parts = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=fold)
        groups = {part: {one.group for one in members} for part, members in parts.items()}
        assert [len(groups[part]) for part in ("train", "val", "test")] == [1, 1, 1]
        assert not groups["test"] & (groups["train"] | groups["val"])
        assert sum(map(len, parts.values())) == len(CITIES)
        tested += names(parts)["test"]
    assert sorted(tested) == CITIES
    named = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="oslo")
    assert names(named) == names(split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=3))


def test_scenes_of_the_regions_that_are_left_may_validate() -> None:
    parts = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="bern", val=0.34)
    assert names(parts)["test"] == ["bern_0"] and len(parts["val"]) == 2
    assert {one.group for one in parts["val"]} <= {one.group for one in parts["train"]}


@settings(deadline=None)
@given(st.integers(3, 9), st.integers(3, 30))
def test_folds_hold_about_as_many_scenes_each(folds: int, count: int) -> None:
    listed = [f"s{i:02}" for i in range(max(count, folds))]
    sizes = []
    for fold in range(1, folds + 1):
        sizes.append(len(split_into_folds(scenes(listed), fold=fold, folds=folds)["test"]))
    assert sum(sizes) == len(listed) and max(sizes) - min(sizes) <= 1


def test_folds_that_are_not_there_are_refused() -> None:
    with pytest.raises(GeotuneError, match=r"found 'bernn', expected 1 to 3 .* did you mean bern"):
        split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="bernn")
    with pytest.raises(GeotuneError, match="found 4, expected 1 to 3"):
        split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=4)
    with pytest.raises(GeotuneError, match=r"2 folds of 2 groups.*at least 3"):
        split_into_folds(scenes(["a", "b"]), fold=1)
