"""Windows whose figure is a mean, and scipy's interval of it."""

import numpy as np
from scipy.stats import bootstrap

from geotune.metrics.state import MetricState

DRAWS = 20_000


def mean_of(parts: MetricState) -> dict[str, float]:
    return {"mean": float(parts.sums["total"] / parts.sums["count"])}


def windows(values: np.ndarray) -> list[MetricState]:
    return [MetricState({"total": np.asarray(v), "count": np.ones(())}) for v in values]


def scipys(*data: np.ndarray, paired: bool = False) -> tuple[float, float]:
    def statistic(*each: np.ndarray, axis: int = -1) -> np.ndarray:
        return each[0].mean(axis=axis) - (each[1].mean(axis=axis) if len(each) > 1 else 0)

    found = bootstrap(
        data,
        statistic,
        n_resamples=DRAWS,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(5),
    ).confidence_interval
    return found.low, found.high
