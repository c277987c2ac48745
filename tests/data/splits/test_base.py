"""Train and val are never empty, and subsamples of the training split are nested."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.config.split_options import GroupSplitOptions, ListSplitOptions, RandomSplitOptions
from geotune.data.splits.base import Splits, subsample_train
from geotune.data.splits.explicit import split_by_list
from geotune.data.splits.groups import split_at_random, split_by_group
from helpers.errors import raises
from helpers.lazy_scenes import names, scenes

HARBOURS = ["algiers", "busan", "durban", "klang"]


def test_empty_splits_are_rejected() -> None:
    with raises("split-empty", key="data.split", mentions=["validation"]):
        split_by_list(scenes(HARBOURS), ListSplitOptions(train=["algiers"], val=[]))
    with raises("split-empty", key="data.split", mentions=["training"]):
        split_by_group(scenes(HARBOURS), GroupSplitOptions(val=HARBOURS))
    with raises("split-empty", key="data.split", mentions=["validation"]):
        split_at_random(scenes(HARBOURS), RandomSplitOptions(val=0))
    with raises("split-empty", key="data.split", mentions=["training"]):
        split_at_random(scenes(HARBOURS[:2]), RandomSplitOptions())


@given(st.integers(1, 40), st.floats(0.02, 1), st.floats(0.02, 1), st.integers(0, 5))
def test_smaller_subsample_of_train_is_a_subset_of_larger_ones(
    count: int, one: float, other: float, seed: int
) -> None:
    small, large = sorted((one, other))
    splits: Splits = {"train": scenes([f"s{i:02}" for i in range(count)]), "val": [], "test": []}
    if small * count < 0.5:
        with raises("split-empty", key="data.fraction"):
            subsample_train(splits, small, seed=seed)
        return
    few, many = (names(subsample_train(splits, f, seed=seed))["train"] for f in (small, large))
    assert set(few) <= set(many) and few == sorted(few)
    assert len(few) == pytest.approx(small * count, abs=0.5 + 1e-9)
    assert subsample_train(splits, 1.0, seed=seed) == splits
