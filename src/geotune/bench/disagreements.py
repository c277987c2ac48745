"""Test windows in which two methods differ most, drawn as in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.adapter_config import TENSORS, load_adapter_config
from geotune.bench.analysis import ComparisonTable
from geotune.bench.results import RUNS
from geotune.config import load_recipe
from geotune.config.schema import files_of_recipe
from geotune.data.window_datasets import GridWindowDataset
from geotune.factory.build_data import build_data
from geotune.factory.build_model import BuiltModel, load_adapter
from geotune.report.context import Example
from geotune.report.from_run import page_name
from geotune.report.rgb import to_rgb
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage, find_page
from geotune.training.evaluate import predict_windows
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics
from geotune.types import Sample
from geotune.utils.colors import Color, palette

WINDOWS = 4
"""Windows per table: half for each direction of the difference."""


@dataclass(frozen=True)
class Disagreements:
    """Windows in which two methods differ, with the pictures of both and a legend of classes."""

    table: ComparisonTable
    methods: tuple[str, str]
    windows: list[Example]
    legend: list[tuple[str, Color]]


def find_disagreements(table: ComparisonTable, folder: Path) -> Disagreements | None:
    """Compare the reference with the best other method on the windows where they differ most.

    Returns None if a table lacks either, or if their windows or weights are missing, or the windows
    are not the same.
    """
    metric, sign = table.objective.metric, -1 if table.objective.lower else 1
    done = {line.method: line for line in table.lines if metric in line.metrics}
    others = [line for name, line in done.items() if name != table.reference]
    if table.reference not in done or not others:
        return None
    best = max(others, key=lambda line: sign * line.metrics[metric].mean)
    runs = [folder / RUNS / line.runs[0] for line in (done[table.reference], best)]
    if not all(RunDir(run).test_windows.exists() and (run / TENSORS).exists() for run in runs):
        return None
    by_run = [WindowMetrics.load(RunDir(run).test_windows) for run in runs]
    if by_run[0].names != by_run[1].names:
        return None
    indices = _select_windows(by_run[1].scores - by_run[0].scores)
    recipe, _ = load_recipe(RunDir(runs[0]).recipe)
    windows = build_data(recipe).test
    assert windows is not None  # both runs are tested
    page = find_page(page_name(recipe))
    names = (table.reference, best.method)
    examples_by_run = [
        [
            _draw(page, built, run, *each)
            for each in _predicted(built, windows, indices, window_metrics)
        ]
        for run, window_metrics in zip(runs, by_run, strict=True)
        for built in [load_adapter(run, **_trusted(RunDir(run)))]
    ]
    examples = []
    for index, (caption, pictures_a), (other_caption, pictures_b) in zip(
        indices, *examples_by_run, strict=True
    ):
        pictures = {}
        for title, picture in pictures_a.items():
            if np.array_equal(picture, pictures_b[title]):
                pictures[title] = picture
            else:
                pictures |= {
                    f"{title}, {n}": each[title]
                    for n, each in zip(names, (pictures_a, pictures_b), strict=True)
                }
        caption = f"{names[0]}: {caption}; {names[1]}: {other_caption}"
        examples.append(Example(windows.sample_name(index), caption, pictures))
    classes = (
        load_adapter_config(runs[0]).sections["task"].get("classes", []) if page.legend else []
    )
    legend = list(zip(classes, palette(classes), strict=True))
    return Disagreements(table, names, examples, legend)


def _trusted(run: RunDir) -> dict[str, str]:
    """Backbone and method that are files, whose code the suite's user trusts by naming them."""
    recipe, _ = load_recipe(run.recipe)
    return files_of_recipe(recipe)


def _predicted(
    built: BuiltModel, windows: GridWindowDataset, indices: list[int], window_metrics: WindowMetrics
) -> list[tuple[Sample, Tensor, float]]:
    predicted = predict_windows(
        built.model, built.task, windows, indices, device=torch.device("cpu")
    )
    return [
        (windows[i], each, float(window_metrics.scores[i]))
        for i, each in zip(indices, predicted, strict=True)
    ]


def _draw(
    page: TaskPage, built: BuiltModel, run: Path, sample: Sample, prediction: Tensor, score: float
) -> tuple[str, Mapping[str, Picture]]:
    return page.draw(
        DisplayedWindow(
            to_rgb(sample.image, built.normalization.bands),
            sample.target,
            prediction.numpy(),
            score,
            built.task.classes,
            palette(built.task.classes),
            getattr(built.task, "unit", ""),
            RunDir(run).details("val"),
        )
    )


def _select_windows(score_difference: NDArray[np.float64]) -> list[int]:
    """Windows with the largest positive and negative differences; zeros and NaN are skipped."""
    known = [
        int(i)
        for i in np.argsort(-score_difference)
        if not np.isnan(score_difference[i]) and score_difference[i] != 0
    ]
    best = [i for i in known if score_difference[i] > 0][: WINDOWS // 2]
    worst = [i for i in known[::-1] if score_difference[i] < 0][: WINDOWS // 2]
    return best + worst
