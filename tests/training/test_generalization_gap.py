"""The generalization gap between regions, and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from geotune.metrics.state import MetricState
from geotune.training.generalization_gap import RegionGap, region_gap
from helpers.units import mean_of, units_of


@dataclass(frozen=True)
class Windows:
    """Windows by region, each with one value."""

    values: dict[str, np.ndarray]

    @property
    def scenes(self) -> list[Any]:
        return [SimpleNamespace(group=group) for group in self.values]

    def subset(self, groups: set[str], max_windows: int | None = None) -> Windows:
        return Windows({group: v for group, v in self.values.items() if group in groups})

    def __len__(self) -> int:
        return sum(map(len, self.values.values()))


def evaluate(dataset: Windows) -> Any:
    states = units_of(np.concatenate(list(dataset.values.values())))
    groups = [group for group, values in dataset.values.items() for _ in values]
    scenes = [f"{group} {i // 2}" for i, group in enumerate(groups)]  # two windows each
    areas = np.unique(scenes, return_inverse=True)[1].tolist()
    windows = SimpleNamespace(states=states, scenes=scenes, areas=areas)
    metrics = mean_of(MetricState.merge(states))
    return SimpleNamespace(metrics=metrics, windows=windows, regions=dict.fromkeys(groups, metrics))


def gap_of(train: Windows, val: Windows, test: Windows) -> RegionGap | None:
    data = SimpleNamespace(train=train, val=val, test=test, train_grid=train)
    return region_gap(cast(Any, data), evaluate(test), cast(Any, evaluate), mean_of)


def test_interval_is_over_scenes() -> None:
    """Windows of a scene are alike: doubling each changes nothing."""
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(0.7, 0.2, 30), rng.normal(0.5, 0.2, 20)
    gap = gap_of(
        Windows({"bern": seen.repeat(2)}),
        Windows({"lima": seen}),
        Windows({"oslo": unseen.repeat(2)}),
    )
    assert gap is not None and gap.seen_in == "training"
    assert (gap.seen_regions, gap.unseen_regions) == (["bern"], ["oslo"])
    assert gap.units == "20 test scenes and 30 test scenes"
    assert gap.unseen["mean"] == pytest.approx(unseen.mean())
    low, high = gap.intervals["mean"]
    assert (low + high) / 2 == pytest.approx(unseen.mean() - seen.mean())
    welch = stats.ttest_ind(unseen, seen, equal_var=False).confidence_interval(0.95)
    assert high - low == pytest.approx(welch.high - welch.low, rel=0.05)


def test_seen_regions_prefer_windows_outside_of_training() -> None:
    ones, others = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    train = Windows({"bern": ones})
    held = Windows({"bern": others, "oslo": ones})
    for val, test, kind in (
        (Windows({"lima": ones}), held, "test"),
        (held, Windows({"oslo": ones}), "validation"),
    ):
        gap = gap_of(train, val, test)
        assert gap is not None and gap.seen_in == kind
        assert gap.seen["mean"] == pytest.approx(0.35)
        assert gap.unseen["mean"] == pytest.approx(0.15)
    assert gap_of(train, held, Windows({"bern": ones})) is None


def test_few_scenes_have_no_interval() -> None:
    gap = gap_of(
        Windows({"bern": np.array([0.5, 0.7])}),
        Windows({"lima": np.array([0.5])}),
        Windows({"oslo": np.array([0.4])}),
    )
    assert gap is not None and all(map(math.isnan, gap.intervals["mean"]))


def test_single_images_are_no_regions() -> None:
    windows = Windows({"a": np.ones(4), "b": np.zeros(4)})
    data = SimpleNamespace(train=windows, val=windows, test=windows, train_grid=windows)
    tested = evaluate(windows)
    tested.regions = {}
    assert region_gap(cast(Any, data), tested, cast(Any, evaluate), mean_of) is None
