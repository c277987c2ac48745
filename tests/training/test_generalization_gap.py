"""The generalization gap between regions, and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from geotune.metrics.state import MetricState
from geotune.training.generalization_gap import RegionGap, region_gap
from helpers.resampling import mean_of, scipy_interval, windows


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
    states = windows(np.concatenate(list(dataset.values.values())))
    metrics = mean_of(MetricState.merge(states))
    return SimpleNamespace(metrics=metrics, windows=SimpleNamespace(states=states))


def gap_of(train: Windows, val: Windows, test: Windows) -> RegionGap | None:
    data = SimpleNamespace(train=train, val=val, test=test, train_grid=train)
    return region_gap(cast(Any, data), evaluate(test), cast(Any, evaluate), mean_of)


def test_interval_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(0.7, 0.2, 60), rng.normal(0.5, 0.2, 40)
    gap = gap_of(Windows({"bern": seen}), Windows({"lima": seen}), Windows({"oslo": unseen}))
    assert gap is not None and gap.seen_in == "training"
    assert (gap.seen_regions, gap.unseen_regions) == (["bern"], ["oslo"])
    assert gap.unseen["mean"] == pytest.approx(unseen.mean())
    assert gap.intervals["mean"] == pytest.approx(scipy_interval(unseen, seen), abs=0.015)
    again = gap_of(Windows({"bern": seen}), Windows({"lima": seen}), Windows({"oslo": unseen}))
    assert again == gap


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


def test_single_window_has_no_interval() -> None:
    gap = gap_of(
        Windows({"bern": np.array([0.5, 0.7])}),
        Windows({"lima": np.array([0.5])}),
        Windows({"oslo": np.array([0.4])}),
    )
    assert gap is not None and all(map(math.isnan, gap.intervals["mean"]))
