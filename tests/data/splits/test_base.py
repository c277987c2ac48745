"""No part but test is empty, and a share of those that train is drawn the same for every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.splits.base import Splits, subsample_train
from geotune.data.splits.explicit import split_by_list
from geotune.data.splits.groups import split_at_random, split_by_group
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scenes

HARBOURS = ["algiers", "busan", "durban", "klang"]


def test_empty_parts_are_refused() -> None:
    with pytest.raises(GeotuneError, match="no scene is left for val"):
        split_by_list(scenes(HARBOURS), train=["algiers"], val=[])
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_by_group(scenes(HARBOURS), val=HARBOURS)
    with pytest.raises(GeotuneError, match="no scene is left for val"):
        split_at_random(scenes(HARBOURS), val=0)
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_at_random(scenes(HARBOURS[:2]))


@given(st.integers(1, 40), st.floats(0.02, 1), st.floats(0.02, 1), st.integers(0, 5))
def test_a_smaller_share_to_train_is_in_every_larger_one(
    count: int, one: float, other: float, seed: int
) -> None:
    small, large = sorted((one, other))
    parts: Splits = {"train": scenes([f"s{i:02}" for i in range(count)]), "val": [], "test": []}
    if small * count < 0.5:
        with pytest.raises(GeotuneError, match=r"data\.fraction: .* less than half of one"):
            subsample_train(parts, small, seed=seed)
        return
    few, many = (names(subsample_train(parts, f, seed=seed))["train"] for f in (small, large))
    assert set(few) <= set(many) and few == sorted(few)
    assert len(few) == pytest.approx(small * count, abs=0.5 + 1e-9)
    assert subsample_train(parts, 1.0, seed=seed) == parts
