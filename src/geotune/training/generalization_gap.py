"""The generalization gap: metrics in regions with training data against unseen regions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from geotune.data.datamodule import DataModule
from geotune.data.window_datasets import GridWindowDataset
from geotune.metrics.spatial_units import MIN_UNITS, independent_units
from geotune.metrics.state import MetricState
from geotune.metrics.uncertainty import effective_units, half_width, influences, variance_over_units
from geotune.training.evaluate import Evaluation
from geotune.training.window_metrics import WindowMetrics

MAX_WINDOWS = 512
"""Windows evaluated in seen regions, evenly spread."""

CONFIDENCE = 0.95

SeenSource = Literal["test", "validation", "training"]


@dataclass(frozen=True)
class RegionGap:
    """Metrics in regions with and without training scenes.

    Attributes:
        seen: metrics in regions with training scenes.
        unseen: metrics of the test split in the other regions.
        intervals: of each metric, the 95 % interval of `unseen - seen` over units of both; NaN if
            one has fewer than `MIN_UNITS`. The variation between training seeds is not included.
        units: what the units are, such as `12 test scenes and 40 test scenes`.
        seen_in: source of the seen windows: the test split if it covers seen regions, else the
            validation split (which selected the epoch), else the training scenes, which gives an
            upper bound of the gap.
        seen_regions: names.
        unseen_regions: names.
    """

    seen: dict[str, float]
    unseen: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    units: str
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

    Returns None if the test split has no unseen region, or single images instead of regions.
    """
    assert data.test is not None
    if not tested.regions:
        return None
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
    intervals, units = _intervals(
        compute_metrics, unseen_evaluation.windows, seen_evaluation.windows
    )
    return RegionGap(
        seen=seen_evaluation.metrics,
        unseen=unseen_evaluation.metrics,
        intervals=intervals,
        units=units,
        seen_in=kind,
        seen_regions=sorted({scene.group for scene in seen.scenes}),
        unseen_regions=sorted(new),
    )


def _intervals(
    compute_metrics: Callable[[MetricState], dict[str, float]],
    unseen: WindowMetrics,
    seen: WindowMetrics,
) -> tuple[dict[str, tuple[float, float]], str]:
    """The interval of `unseen - seen` of each metric, and the units that it is over."""
    units = [independent_units(each.scenes, each.areas) for each in (unseen, seen)]
    text = " and ".join(map(str, units))
    one, other = (compute_metrics(MetricState.merge(each.states)) for each in (unseen, seen))
    if min(each.count for each in units) < MIN_UNITS:
        return dict.fromkeys(one, (math.nan, math.nan)), text
    by_unit = [
        influences(compute_metrics, unit.merge(each.states))
        for unit, each in zip(units, (unseen, seen), strict=True)
    ]
    intervals = {}
    for name in one:
        variances = [
            variance_over_units(each[name], effective_units(each[name][None, None]))
            for each in by_unit
        ]
        half = float(half_width(variances, CONFIDENCE))
        difference = one[name] - other[name]
        intervals[name] = difference - half, difference + half
    return intervals, text
