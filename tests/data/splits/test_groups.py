"""Splits by group never divide a group."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from geotune.config.split_options import FoldSplitOptions, GroupSplitOptions, RandomSplitOptions
from geotune.data.splits.folds import split_into_folds
from geotune.data.splits.groups import group_of, split_at_random, split_by_group
from helpers.errors import raises
from helpers.lazy_scenes import names, scenes

CITIES = [
    f"{city}_{i}" for city, count in (("bern", 1), ("lima", 4), ("oslo", 2)) for i in range(count)
]


def test_groups_are_held_out_as_a_whole() -> None:
    listed = scenes(["rome_1", "rome_2", "oslo_1", "oslo_2", "lima_1"])
    splits = split_by_group(
        listed, GroupSplitOptions(by=r"^([a-z]+)_", val=["oslo"], test=["lima"])
    )
    assert names(splits) == {
        "train": ["rome_1", "rome_2"],
        "val": ["oslo_1", "oslo_2"],
        "test": ["lima_1"],
    }
    assert {scene.group for scene in splits["val"]} == {"oslo"}
    for by, mentions in (("(", "'('"), ("rome", "'rome'"), ("(rome)", "oslo_1")):
        with raises("split-groups", key="data.split.by", mentions=[mentions]):
            split_by_group(listed, GroupSplitOptions(by=by, val=["rome"]))


def test_group_can_be_a_table_column() -> None:
    listed = [replace(one, attributes={"region": one.name[0]}) for one in scenes(CITIES)]
    splits = split_into_folds(listed, FoldSplitOptions(by="region", fold="o"))
    assert names(splits)["test"] == ["oslo_0", "oslo_1"]
    with raises("split-groups", key="data.split.by", mentions=["'regio'", "region"]):
        split_into_folds(listed, FoldSplitOptions(by="regio", fold="o"))
    with raises("split-groups", mentions=["region", "bern_0"]):
        group_of(replace(listed[0], attributes={"region": " "}), "region")


def test_random_splits_keep_groups_together() -> None:
    for seed in range(5):
        splits = split_at_random(
            scenes(CITIES), RandomSplitOptions(by="^([a-z]+)_", val=0.3, test=0.3, seed=seed)
        )
        groups = [{one.group for one in members} for members in splits.values()]
        assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3


@given(st.integers(3, 60), st.floats(0.05, 0.3), st.floats(0, 0.3), st.integers(0, 9))
def test_random_splits_are_disjoint_and_independent_of_order(
    count: int, val: float, test: float, seed: int
) -> None:
    given_names = [f"s{i}" for i in range(count)]
    splits = names(
        split_at_random(scenes(given_names), RandomSplitOptions(val=val, test=test, seed=seed))
    )
    assert sorted(name for split in splits.values() for name in split) == sorted(given_names)
    assert abs(len(splits["val"]) - val * count) <= 1
    assert bool(splits["test"]) == (test > 0)
    shuffled = split_at_random(
        scenes(given_names[::-1]), RandomSplitOptions(val=val, test=test, seed=seed)
    )
    assert {k: sorted(v) for k, v in names(shuffled).items()} == {
        k: sorted(v) for k, v in splits.items()
    }
