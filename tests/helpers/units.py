"""Units whose metric is a mean."""

import numpy as np

from geotune.metrics.state import MetricState


def mean_of(state: MetricState) -> dict[str, float]:
    return {"mean": float(state.sums["total"] / state.sums["count"])}


def units_of(values: np.ndarray) -> list[MetricState]:
    return [MetricState({"total": np.asarray(v), "count": np.ones(())}) for v in values]
