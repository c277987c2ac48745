"""Groups are held out whole, whatever a group is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.splits.folds import split_into_folds
from geotune.data.splits.groups import group_of, split_at_random, split_by_group
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scenes

CITIES = [
    f"{city}_{i}" for city, count in (("bern", 1), ("lima", 4), ("oslo", 2)) for i in range(count)
]


def test_groups_are_held_out_whole() -> None:
    listed = scenes(["rome_1", "rome_2", "oslo_1", "oslo_2", "lima_1"])
    parts = split_by_group(listed, by=r"^([a-z]+)_", val=["oslo"], test=["lima"])
    assert names(parts) == {
        "train": ["rome_1", "rome_2"],
        "val": ["oslo_1", "oslo_2"],
        "test": ["lima_1"],
    }
    assert {scene.group for scene in parts["val"]} == {"oslo"}
    for by, message in (
        ("(", "is no regular expression"),
        ("rome", "has no group"),
        ("(rome)", "does not match the scene oslo_1"),
    ):
        with pytest.raises(GeotuneError, match=message):
            split_by_group(listed, by=by, val=["rome"])


def test_a_column_of_the_table_may_be_the_group() -> None:
    listed = [replace(one, attributes={"region": one.name[0]}) for one in scenes(CITIES)]
    parts = split_into_folds(listed, by="region", fold="o")
    assert names(parts)["test"] == ["oslo_0", "oslo_1"]
    with pytest.raises(
        GeotuneError, match=r"'regio' has no group.*the scenes have the columns reg"
    ):
        split_into_folds(listed, by="regio", fold="o")
    with pytest.raises(GeotuneError, match="column region is empty for bern_0"):
        group_of(replace(listed[0], attributes={"region": " "}), "region")


def test_groups_drawn_at_random_stay_whole() -> None:
    for seed in range(5):
        parts = split_at_random(scenes(CITIES), by="^([a-z]+)_", val=0.3, test=0.3, seed=seed)
        groups = [{one.group for one in members} for members in parts.values()]
        assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3


@given(st.integers(3, 60), st.floats(0.05, 0.3), st.floats(0, 0.3), st.integers(0, 9))
def test_random_parts_share_no_scene(count: int, val: float, test: float, seed: int) -> None:
    given_names = [f"s{i}" for i in range(count)]
    parts = names(split_at_random(scenes(given_names), val=val, test=test, seed=seed))
    assert sorted(name for part in parts.values() for name in part) == sorted(given_names)
    assert abs(len(parts["val"]) - val * count) <= 1
    assert bool(parts["test"]) == (test > 0)
    shuffled = split_at_random(scenes(given_names[::-1]), val=val, test=test, seed=seed)
    assert {k: sorted(v) for k, v in names(shuffled).items()} == {
        k: sorted(v) for k, v in parts.items()
    }
