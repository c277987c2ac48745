"""Evaluate a model on a split: overall, by region and by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geotune.data.window_datasets import GridWindowDataset
from geotune.metrics.state import MetricState
from geotune.model import Model
from geotune.tasks.base import Task
from geotune.training.loaders import make_loader
from geotune.training.window_metrics import WindowMetrics
from geotune.types import Batch
from geotune.utils.precision import autocast


@dataclass(frozen=True)
class Evaluation:
    """Results on one split.

    Attributes:
        metrics: over all windows.
        regions: metrics of each group of scenes; empty if every group is a single image.
        window_scores: `Task.score` of each window, NaN without one.
        details: further results of the task, such as the confusion matrix of classes.
        windows: metric state of each window.
    """

    metrics: dict[str, float]
    regions: dict[str, dict[str, float]]
    window_scores: list[float]
    details: dict[str, Any]
    windows: WindowMetrics


def evaluate(
    model: Model,
    task: Task,
    windows: GridWindowDataset,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "32-true",
    workers: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run the model once over every window; `on_progress` receives finished and total windows."""
    model.to(device).eval()
    overall, single = task.metrics().to(device), task.metrics().to(device)
    empty = single.state()
    scores: list[float] = []
    states: list[MetricState] = []
    with torch.no_grad(), autocast(device, precision):
        for batch in make_loader(windows, batch_size, workers=workers):
            batch = batch.to(device)
            outputs = model(**batch.inputs)
            overall.update(outputs, batch.targets)
            for i in range(len(batch)):
                window = outputs[i : i + 1], batch.targets[i : i + 1]
                single.reset()
                single.update(*window)
                states.append(single.state())
                scores.append(task.score(*window))
            if on_progress is not None:
                on_progress(len(scores), len(windows))
    window_metrics = WindowMetrics.from_windows(windows, scores, states)
    regions = {
        region: [
            s for s, group in zip(states, window_metrics.groups, strict=True) if group == region
        ]
        for region in _regions(windows)
    }
    return Evaluation(
        overall.compute(),
        {
            region: single.compute_from(MetricState.merge([empty, *own_states]))
            for region, own_states in regions.items()
        },
        scores,
        overall.details(),
        window_metrics,
    )


def predict_windows(
    model: Model,
    task: Task,
    windows: GridWindowDataset,
    indices: list[int],
    *,
    device: torch.device,
    precision: str = "32-true",
) -> list[Tensor]:
    """Predictions for some windows, see `Task.predict`."""
    model.to(device).eval()
    with torch.no_grad(), autocast(device, precision):
        return [
            task.predict(model(**Batch.from_samples([windows[i]]).to(device).inputs))[0].cpu()
            for i in indices
        ]


def _regions(windows: GridWindowDataset) -> list[str]:
    groups = list(dict.fromkeys(scene.group for scene in windows.scenes))
    single = windows.scenes[0].labels.image_level and len(groups) == len(windows.scenes)
    return [] if single else groups
