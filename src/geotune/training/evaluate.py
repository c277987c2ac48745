"""Metrics of a model over a part of the data: in all, by region, and window by window."""

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
from geotune.utils.autocast import autocast


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        metrics: over all windows.
        regions: the same for each group of scenes; none where each group is one image.
        scores: of each window, NaN where it has none.
        details: what the task tells beside its metrics, such as the `confusion` of classes.
        windows: what was counted in each.
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
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run the model over every window once. `progress` is told windows done and in all."""
    model.to(device).eval()
    everything, single = task.metrics().to(device), task.metrics().to(device)
    nothing = single.state()
    scores: list[float] = []
    parts: list[MetricState] = []
    with torch.no_grad(), autocast(device, precision):
        for batch in make_loader(windows, batch_size, workers=workers):
            batch = batch.to(device)
            outputs = model(**batch.inputs)
            everything.update(outputs, batch.targets)
            for i in range(len(batch)):
                one = outputs[i : i + 1], batch.targets[i : i + 1]
                single.reset()
                single.update(*one)
                parts.append(single.state())
                scores.append(task.score(*one))
            if progress is not None:
                progress(len(scores), len(windows))
    found = WindowMetrics.from_windows(windows, scores, parts)
    regions = {
        group: [part for part, its in zip(parts, found.groups, strict=True) if its == group]
        for group in _regions(windows)
    }
    return Evaluation(
        everything.compute(),
        {
            group: single.compute_from(MetricState.merge([nothing, *its]))
            for group, its in regions.items()
        },
        scores,
        everything.details(),
        found,
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
    """What the task shows of some windows, such as classes `(H, W)`."""
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
