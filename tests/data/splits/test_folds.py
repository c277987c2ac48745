"""Cross-validation folds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.config.split_options import FoldSplitOptions
from geotune.data.splits.folds import split_into_folds
from helpers.errors import raises
from helpers.lazy_scenes import names, scenes

CITIES = [
    f"{city}_{i}" for city, count in (("bern", 1), ("lima", 4), ("oslo", 2)) for i in range(count)
]


def test_each_region_is_tested_once() -> None:
    tested: list[str] = []
    for fold in (1, 2, 3):
        splits = split_into_folds(scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold=fold))
        groups = {split: {one.group for one in members} for split, members in splits.items()}
        assert [len(groups[split]) for split in ("train", "val", "test")] == [1, 1, 1]
        assert not groups["test"] & (groups["train"] | groups["val"])
        assert sum(map(len, splits.values())) == len(CITIES)
        tested += names(splits)["test"]
    assert sorted(tested) == CITIES
    named = split_into_folds(scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold="oslo"))
    assert names(named) == names(
        split_into_folds(scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold=3))
    )


def test_validation_scenes_can_come_from_training_regions() -> None:
    splits = split_into_folds(
        scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold="bern", val=0.34)
    )
    assert names(splits)["test"] == ["bern_0"] and len(splits["val"]) == 2
    assert {one.group for one in splits["val"]} <= {one.group for one in splits["train"]}


@settings(deadline=None)
@given(st.integers(3, 9), st.integers(3, 30))
def test_folds_have_similar_sizes(folds: int, count: int) -> None:
    listed = [f"s{i:02}" for i in range(max(count, folds))]
    sizes = []
    for fold in range(1, folds + 1):
        sizes.append(
            len(split_into_folds(scenes(listed), FoldSplitOptions(fold=fold, folds=folds))["test"])
        )
    assert sum(sizes) == len(listed) and max(sizes) - min(sizes) <= 1


def test_unknown_folds_and_too_few_groups_are_rejected() -> None:
    with raises("split-name-unknown", key="data.split.fold", mentions=["'bernn'", "bern?"]):
        split_into_folds(scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold="bernn"))
    with raises("split-name-unknown", key="data.split.fold", mentions=[4, "1 to 3"]):
        split_into_folds(scenes(CITIES), FoldSplitOptions(by="^([a-z]+)_", fold=4))
    with raises("split-groups", key="data.split.folds", mentions=["2 folds", 3]):
        split_into_folds(scenes(["a", "b"]), FoldSplitOptions(fold=1))
