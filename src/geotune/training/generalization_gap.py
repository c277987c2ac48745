"""How much is lost where a model has never been: regions that it saw against those it did not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geotune.data.datamodule import DataModule
from geotune.data.window_datasets import GridWindowDataset
from geotune.metrics.bootstrap import (
    bootstrap,
    multiplicities,
    percentile_interval,
    resample_indices,
)
from geotune.metrics.state import MetricState
from geotune.training.evaluate import Evaluation

MAX_WINDOWS = 512
"""Of training scenes that are measured to compare with, evenly spread."""

NUM_RESAMPLES = 500
CONFIDENCE = 0.95

SeenSource = Literal["test", "validation", "training"]


@dataclass(frozen=True)
class RegionGap:
    """Metrics in regions with training scenes, and in regions without.

    Attributes:
        seen: metrics in the former.
        unseen: metrics of the test part in the latter.
        intervals: of each metric where `unseen` less `seen` begins and ends in 95 % of draws of the
            windows, those of either by themselves; NaN where one of them has a single window. What
            it owes to which regions there are, and to the training's seed, is not in it.
        seen_in: which scenes of the seen regions were measured: of the test part; where it has
            none there, of the validation part (which chose the epoch); else the training scenes
            themselves, which says what is lost at most.
        seen_regions: by name.
        unseen_regions: by name.
    """

    seen: dict[str, float]
    unseen: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    seen_in: SeenSource
    seen_regions: list[str]
    unseen_regions: list[str]


def region_gap(
    data: DataModule,
    tested: Evaluation,
    evaluate_windows: Callable[[GridWindowDataset], Evaluation],
    compute_metrics: Callable[[MetricState], dict[str, float]],
) -> RegionGap | None:
    """What a test in new regions says, beside one in the regions of the training.

    `tested` is of the whole test part. None where all of its regions were trained in. A region is
    what the split calls a group. `figures` makes metrics of what was counted (`Metrics.compute_from`).
    """
    assert data.test is not None
    trained = {scene.group for scene in data.train.scenes}
    new = {scene.group for scene in data.test.scenes} - trained
    unseen = data.test.subset(new)
    if not len(unseen):
        return None
    kinds: tuple[tuple[SeenSource, GridWindowDataset], ...] = (
        ("test", data.test),
        ("validation", data.val),
        ("training", data.train_grid),
    )
    measurable = (
        (kind, windows.subset(trained, max_windows=MAX_WINDOWS)) for kind, windows in kinds
    )
    kind, seen = next((kind, windows) for kind, windows in measurable if len(windows))
    there = tested if len(unseen) == len(data.test) else evaluate_windows(unseen)
    here = evaluate_windows(seen)
    return RegionGap(
        seen=here.metrics,
        unseen=there.metrics,
        intervals=_intervals(compute_metrics, there.windows.states, here.windows.states),
        seen_in=kind,
        seen_regions=sorted({scene.group for scene in seen.scenes}),
        unseen_regions=sorted(new),
    )


def _intervals(
    compute_metrics: Callable[[MetricState], dict[str, float]],
    ones: Sequence[MetricState],
    others: Sequence[MetricState],
) -> dict[str, tuple[float, float]]:
    """Of each figure the interval of its difference between two sets of windows."""
    if min(len(ones), len(others)) < 2:  # a window by itself is always drawn
        return dict.fromkeys(compute_metrics(ones[0]), (math.nan, math.nan))
    rng = np.random.default_rng(0)
    one, other = (
        bootstrap(
            compute_metrics, parts, multiplicities(resample_indices(len(parts), NUM_RESAMPLES, rng))
        )
        for parts in (ones, others)
    )
    return {name: percentile_interval(one[name] - other[name], CONFIDENCE) for name in one}
