"""The generalization gap: metrics in regions with training data against unseen regions."""

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
"""Windows evaluated in seen regions, evenly spread."""

NUM_RESAMPLES = 500
CONFIDENCE = 0.95

SeenSource = Literal["test", "validation", "training"]


@dataclass(frozen=True)
class RegionGap:
    """Metrics in regions with and without training scenes.

    Attributes:
        seen: metrics in regions with training scenes.
        unseen: metrics of the test split in the other regions.
        intervals: of each metric, the 95 % bootstrap interval of `unseen - seen` over windows; NaN
            if one of them has a single window. Differences between regions and between training
            seeds are not included.
        seen_in: source of the seen windows: the test split if it covers seen regions, else the
            validation split (which selected the epoch), else the training scenes, which gives an
            upper bound of the gap.
        seen_regions: names.
        unseen_regions: names.
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
    """Compare the test in unseen regions with one in seen regions; a region is a group of a split.

    Args:
        data: all splits.
        tested: evaluation of the whole test split.
        evaluate_windows: evaluates other windows.
        compute_metrics: metrics of a merged state, `Metrics.compute_from`.

    Returns None if the test split has no unseen region.
    """
    assert data.test is not None
    trained = {scene.group for scene in data.train.scenes}
    new = {scene.group for scene in data.test.scenes} - trained
    unseen = data.test.subset(new)
    if not len(unseen):
        return None
    sources: tuple[tuple[SeenSource, GridWindowDataset], ...] = (
        ("test", data.test),
        ("validation", data.val),
        ("training", data.train_grid),
    )
    candidates = (
        (kind, windows.subset(trained, max_windows=MAX_WINDOWS)) for kind, windows in sources
    )
    kind, seen = next((kind, windows) for kind, windows in candidates if len(windows))
    unseen_evaluation = tested if len(unseen) == len(data.test) else evaluate_windows(unseen)
    seen_evaluation = evaluate_windows(seen)
    return RegionGap(
        seen=seen_evaluation.metrics,
        unseen=unseen_evaluation.metrics,
        intervals=_intervals(
            compute_metrics, unseen_evaluation.windows.states, seen_evaluation.windows.states
        ),
        seen_in=kind,
        seen_regions=sorted({scene.group for scene in seen.scenes}),
        unseen_regions=sorted(new),
    )


def _intervals(
    compute_metrics: Callable[[MetricState], dict[str, float]],
    unseen: Sequence[MetricState],
    seen: Sequence[MetricState],
) -> dict[str, tuple[float, float]]:
    """The interval of `unseen - seen` of each metric."""
    if min(len(unseen), len(seen)) < 2:  # resampling a single window has no spread
        return dict.fromkeys(compute_metrics(unseen[0]), (math.nan, math.nan))
    rng = np.random.default_rng(0)
    one, other = (
        bootstrap(
            compute_metrics,
            states,
            multiplicities(resample_indices(len(states), NUM_RESAMPLES, rng)),
        )
        for states in (unseen, seen)
    )
    return {name: percentile_interval(one[name] - other[name], CONFIDENCE) for name in one}
