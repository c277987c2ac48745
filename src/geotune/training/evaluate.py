"""Evaluate a model on a split: overall, by region and by window."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geotune.data.window_datasets import GridWindowDataset
from geotune.errors import GeotuneError
from geotune.metrics.state import MetricState
from geotune.model import Model
from geotune.tasks.base import Metrics, Task
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
        details: further results of the task, such as the confusion matrix of classes.
        windows: score and metric state of each window.
    """

    metrics: dict[str, float]
    regions: dict[str, dict[str, float]]
    details: dict[str, Any]
    windows: WindowMetrics

    @staticmethod
    def from_metrics(
        task: Task, metrics: Metrics, scores: Sequence[float], dataset: GridWindowDataset
    ) -> Evaluation:
        """From metrics that saw every window of a split once, in order, and the windows' scores."""
        windows = WindowMetrics.from_windows(dataset, scores, metrics.windows())
        empty = task.metrics().state()
        states = zip(windows.states, windows.groups, strict=True)
        by_region: dict[str, list[MetricState]] = {name: [empty] for name in _regions(dataset)}
        for state, group in states if by_region else ():
            by_region[group].append(state)
        regions = {
            region: metrics.compute_from(MetricState.merge(own))
            for region, own in by_region.items()
        }
        return Evaluation(metrics.compute(), regions, metrics.details(), windows)

    def save(self, path: Path, epoch: int) -> None:
        """Write the validation of an epoch to an npz file."""
        results = [epoch, self.metrics, self.regions, self.details]
        self.windows.save(path, results=np.array(json.dumps(results)))

    @staticmethod
    def load(path: Path) -> tuple[int, Evaluation] | None:
        """Epoch and validation from a file of `save`; None if it is missing or damaged."""
        try:
            windows = WindowMetrics.load(path)
            with np.load(path, allow_pickle=False) as arrays:
                epoch, metrics, regions, details = json.loads(str(arrays["results"]))
        except (GeotuneError, OSError, ValueError, KeyError):
            return None
        return epoch, Evaluation(metrics, regions, details, windows)


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
    metrics = task.metrics().to(device)
    scores: list[float] = []
    with torch.no_grad(), autocast(device, precision):
        for batch in make_loader(windows, batch_size, workers=workers):
            batch = batch.to(device)
            outputs = model(**batch.inputs)
            metrics.update(outputs, batch.targets)
            scores += window_scores(task, outputs, batch.targets)
            if on_progress is not None:
                on_progress(len(scores), len(windows))
    return Evaluation.from_metrics(task, metrics, scores, windows)


def window_scores(task: Task, outputs: Any, targets: Any) -> list[float]:
    """`Task.score` of each window of a batch."""
    return [task.score(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]


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
