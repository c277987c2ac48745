"""Windows whose metric is a mean, and scipy's bootstrap interval of it."""

import numpy as np
from scipy.stats import bootstrap

from geotune.metrics.state import MetricState

DRAWS = 20_000


def mean_of(state: MetricState) -> dict[str, float]:
    return {"mean": float(state.sums["total"] / state.sums["count"])}


def windows(values: np.ndarray) -> list[MetricState]:
    return [MetricState({"total": np.asarray(v), "count": np.ones(())}) for v in values]


def scipy_interval(*data: np.ndarray, paired: bool = False) -> tuple[float, float]:
    def statistic(*each: np.ndarray, axis: int = -1) -> np.ndarray:
        return each[0].mean(axis=axis) - (each[1].mean(axis=axis) if len(each) > 1 else 0)

    interval = bootstrap(
        data,
        statistic,
        n_resamples=DRAWS,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(5),
    ).confidence_interval
    return interval.low, interval.high
