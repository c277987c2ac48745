"""The gap between regions, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from geotune.training.generalization_gap import RegionGap, region_gap
from helpers.resampling import mean_of, scipy_interval, windows


@dataclass(frozen=True)
class Windows:
    """Those of regions, each of a value."""

    values: dict[str, np.ndarray]

    @property
    def scenes(self) -> list[Any]:
        return [SimpleNamespace(group=group) for group in self.values]

    def of(self, groups: set[str], most: int | None = None) -> Windows:
        return Windows({group: v for group, v in self.values.items() if group in groups})

    def __len__(self) -> int:
        return sum(map(len, self.values.values()))


def evaluate(those: Windows) -> Any:
    parts = windows(np.concatenate(list(those.values.values())))
    figures = mean_of(type(parts[0]).join(parts))
    return SimpleNamespace(metrics=figures, windows=SimpleNamespace(parts=parts))


def gap_of(train: Windows, val: Windows, test: Windows) -> RegionGap | None:
    data = SimpleNamespace(train=train, val=val, test=test, train_grid=train)
    return region_gap(cast(Any, data), evaluate(test), cast(Any, evaluate), mean_of)


def test_the_interval_of_a_gap_is_scipys() -> None:
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(0.7, 0.2, 60), rng.normal(0.5, 0.2, 40)
    found = gap_of(Windows({"bern": seen}), Windows({"lima": seen}), Windows({"oslo": unseen}))
    assert found is not None and found.seen_in == "training"
    assert (found.seen_regions, found.unseen_regions) == (["bern"], ["oslo"])
    assert found.unseen["mean"] == pytest.approx(unseen.mean())
    assert found.intervals["mean"] == pytest.approx(scipy_interval(unseen, seen), abs=0.015)
    again = gap_of(Windows({"bern": seen}), Windows({"lima": seen}), Windows({"oslo": unseen}))
    assert again == found


def test_seen_regions_are_measured_where_they_did_not_train() -> None:
    ones, others = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    train = Windows({"bern": ones})
    held = Windows({"bern": others, "oslo": ones})
    for val, test, kind in (
        (Windows({"lima": ones}), held, "test"),
        (held, Windows({"oslo": ones}), "validation"),
    ):
        found = gap_of(train, val, test)
        assert found is not None and found.seen_in == kind
        assert found.seen["mean"] == pytest.approx(0.35)
        assert found.unseen["mean"] == pytest.approx(0.15)
    assert gap_of(train, held, Windows({"bern": ones})) is None


def test_a_single_window_says_nothing_of_how_sure_it_is() -> None:
    found = gap_of(
        Windows({"bern": np.array([0.5, 0.7])}),
        Windows({"lima": np.array([0.5])}),
        Windows({"oslo": np.array([0.4])}),
    )
    assert found is not None and all(map(math.isnan, found.intervals["mean"]))
