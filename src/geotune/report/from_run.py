"""Build the report of a run from its folder."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geotune.config import Recipe
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel
from geotune.report.context import BackboneSummary, Cost, Example, Report, SplitSummary
from geotune.report.rgb import to_rgb
from geotune.report.tasks.base import DisplayedWindow, TaskPage
from geotune.training.evaluate import Evaluation, predict_windows
from geotune.training.run_dir import METRIC_SECTIONS, RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.colors import palette
from geotune.utils.rgb_bands import shown_bands

UNITS = {"chips": "chip", "images": "image", "named": "image"}
"""The unit of data of a kind; `scene` for all others."""

EXAMPLES = 4
"""Number of best and of worst windows shown."""


@dataclass(frozen=True)
class Examples:
    """The best and worst validation windows, best first and worst first."""

    best: list[Example]
    worst: list[Example]

    def save(self, path: Path) -> None:
        """Write them to an NPZ file."""
        arrays: dict[str, NDArray[Any]] = {}
        for kind, examples in (("best", self.best), ("worst", self.worst)):
            for i, example in enumerate(examples):
                key = f"{kind}.{i}"
                arrays[f"{key}.name"] = np.array(example.name)
                arrays[f"{key}.caption"] = np.array(example.caption)
                arrays[f"{key}.titles"] = np.array(list(example.pictures))
                for j, picture in enumerate(example.pictures.values()):
                    arrays[f"{key}.picture.{j}"] = picture
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> Examples:
        """Read a file written by `save`; empty if it is missing.

        Raises `GeotuneError` if it cannot be read.
        """
        if not path.is_file():
            return Examples([], [])
        examples_by_kind: dict[str, list[Example]] = {"best": [], "worst": []}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for kind, examples in examples_by_kind.items():
                    while f"{kind}.{len(examples)}.name" in arrays:
                        key = f"{kind}.{len(examples)}"
                        pictures = {
                            str(title): arrays[f"{key}.picture.{j}"]
                            for j, title in enumerate(arrays[f"{key}.titles"])
                        }
                        caption = str(arrays[f"{key}.caption"])
                        examples.append(Example(str(arrays[f"{key}.name"]), caption, pictures))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GeotuneError(
                f"{path}: invalid example windows ({error}); delete the file to write the report "
                "without them",
                code="file-unreadable",
                file=path,
            ) from error
        return Examples(**examples_by_kind)


def choose_examples(
    built: BuiltModel,
    data: DataModule,
    validation: Evaluation,
    page: TaskPage,
    *,
    device: torch.device,
    precision: str = "32-true",
) -> Examples:
    """The best and worst windows, if possible with more than the most common class."""
    windows = data.val
    scores = validation.windows.scores.tolist()
    scored = [i for i, score in enumerate(scores) if not math.isnan(score)]
    common = int(np.argmax(data.class_counts["val"]))
    informative = [i for i in scored if page.is_informative(windows[i].target, common)]
    pool = informative if len(informative) >= 2 * EXAMPLES else scored
    order = sorted(pool, key=lambda i: scores[i])
    count = min(EXAMPLES, len(order) // 2) or len(order)
    worst = order[:count]
    best = [i for i in order[::-1][:count] if i not in worst]
    predicted = predict_windows(
        built.model, built.task, windows, best + worst, device=device, precision=precision
    )
    bands, classes = data.statistics.bands, built.task.classes
    examples = []
    for index, prediction in zip(best + worst, predicted, strict=True):
        sample = windows[index]
        caption, pictures = page.draw(
            DisplayedWindow(
                # the last of several dates
                to_rgb(sample.image if sample.image.ndim == 3 else sample.image[:, -1], bands),
                sample.target,
                prediction.numpy(),
                scores[index],
                classes,
                palette(classes),
                getattr(built.task, "unit", ""),
                validation.details,
                bands,
            )
        )
        examples.append(Example(sample.name, caption, pictures))
    return Examples(examples[: len(best)], examples[len(best) :])


def page_name(recipe: Recipe) -> str:
    """The key of a recipe's task in `registry.TASK_PAGES`."""
    task = recipe.task
    if getattr(task, "boxes", "") == "points":
        return f"{task.kind} points"
    return f"{task.kind} several" if getattr(task, "multilabel", False) else task.kind


def make_report(
    folder: RunDir,
    recipe: Recipe,
    examples: Examples,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Report:
    """The report of a trained run, with the contents of its `run.json` and `metrics.json`."""
    bands, classes = run["data"]["bands"], run["data"]["classes"]
    backbone, memory = run["backbone"], run["peak_memory"]
    evaluated = [split for split in ("val", "test") if split in metrics]
    return Report(
        name=folder.path.name,
        method=recipe.method.kind,
        decoder=recipe.decoder.kind,
        classes=classes,
        colors=palette(classes),
        task=page_name(recipe),
        label_unit=run["data"]["unit"],
        value_unit=getattr(recipe.task, "unit", ""),
        backbone=BackboneSummary(
            backbone["name"], backbone["licence"], backbone["source"], backbone["random_weights"]
        ),
        cost=Cost(
            device=run["device"],
            seconds_total=run["seconds"],
            seconds_per_epoch=run["seconds_per_epoch"],
            trained_parameters=run["trained_parameters"],
            total_parameters=run["total_parameters"],
            peak_memory_bytes=memory["peak_bytes"],
            peak_memory_kind=memory["kind"],
            predicted_memory_bytes=memory.get("predicted_bytes"),
            tensor_memory_bytes=memory.get("tracked_bytes"),
            reserved_memory_bytes=memory.get("reserved_bytes"),
            adapter_bytes=run["adapter_bytes"],
        ),
        recipe_yaml=folder.recipe.read_text(encoding="utf-8"),
        history=folder.read_history(),
        metrics={split: _numbers(metrics[split]) for split in evaluated},
        confusion=metrics.get("confusion", {}),
        details={
            name: values
            for name, values in metrics.items()
            if name not in (*METRIC_SECTIONS, "confusion")
        },
        regions={
            name: _numbers(values)
            for name, values in metrics.get("regions", {}).get(evaluated[-1], {}).items()
        },
        gap=_gap(metrics.get("gap")),
        best=examples.best,
        worst=examples.worst,
        data={
            split: SplitSummary(scenes, run["data"]["class_counts"][split])
            for split, scenes in run["data"]["parts"].items()
            if scenes
        },
        best_epoch=run["best_epoch"],
        unit=UNITS.get(recipe.data.kind, "scene"),
        shown_bands=[bands[i] for i in shown_bands(bands)] if len(bands) > 2 else [],
        versions={"geotune": run["geotune"], **run["versions"]},
        distances_m=run["data"].get("distances_m", {}),
        skipped=run["data"].get("skipped", ()),
        notes=run["notes"],
        created=run["created"],
    )


def _gap(gap: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The gap with NaN for the nulls of JSON, and without unknown intervals.

    Before gaps had units, their intervals were over single windows and too short.
    """
    if gap is None:
        return None
    pairs = gap["intervals"].items() if "units" in gap else ()
    intervals = {
        name: pair
        for name, pair in pairs
        if all(end is not None and math.isfinite(end) for end in pair)
    }
    return {
        **gap,
        "seen": _numbers(gap["seen"]),
        "unseen": _numbers(gap["unseen"]),
        "intervals": intervals,
    }


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in values.items()}
