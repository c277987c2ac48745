"""From a run folder to its report: the one place that knows both."""

from __future__ import annotations

import csv
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
from geotune.report.context import Backbone, Cost, Example, Report, SplitSummary
from geotune.report.rgb import shown_bands, to_rgb
from geotune.report.tasks.base import Shown, TaskPage
from geotune.training.evaluate import Evaluation, predict_windows
from geotune.training.run_dir import METRIC_SECTIONS, RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.colors import palette

UNITS = {"chips": "chip", "images": "image", "named": "image"}
"""What data of a kind comes in, where that is no scene."""

EXAMPLES = 4
"""How many of the best and of the worst windows are shown."""


@dataclass(frozen=True)
class Examples:
    """The best and worst validation windows, best first and worst first."""

    best: list[Example]
    worst: list[Example]

    def save(self, path: Path) -> None:
        """Write them as arrays."""
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
        """Read what `save` wrote; none where the file is gone. Raises `GeotuneError` for others."""
        if not path.is_file():
            return Examples([], [])
        found: dict[str, list[Example]] = {"best": [], "worst": []}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for kind, examples in found.items():
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
                f"{path}: cannot be read as example windows of this version ({error}); delete it, "
                "and the report is written without them"
            ) from error
        return Examples(found["best"], found["worst"])


def choose_examples(
    built: BuiltModel,
    data: DataModule,
    validation: Evaluation,
    page: TaskPage,
    *,
    device: torch.device,
    precision: str = "32-true",
) -> Examples:
    """The best and worst windows; first those that hold more than the commonest class."""
    windows = data.val
    scored = [i for i, score in enumerate(validation.window_scores) if not math.isnan(score)]
    common = int(np.argmax(data.class_counts["val"]))
    telling = [i for i in scored if page.telling(windows[i].target, common)]
    pool = telling if len(telling) >= 2 * EXAMPLES else scored
    order = sorted(pool, key=lambda i: validation.window_scores[i])
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
            Shown(
                # of several dates the last
                to_rgb(sample.image if sample.image.ndim == 3 else sample.image[:, -1], bands),
                sample.target,
                prediction.numpy(),
                validation.window_scores[index],
                classes,
                palette(classes),
                getattr(built.task, "unit", ""),
                validation.details,
            )
        )
        examples.append(Example(sample.name, caption, pictures))
    return Examples(examples[: len(best)], examples[len(best) :])


def page_name(recipe: Recipe) -> str:
    """Under which name a recipe's task is in the catalogue of pages."""
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
    """The report of a trained run: `run` and `metrics` are what its JSON files hold."""
    bands, classes = run["data"]["bands"], run["data"]["classes"]
    backbone, memory = run["backbone"], run["peak_memory"]
    tested = [part for part in ("val", "test") if part in metrics]
    return Report(
        name=folder.path.name,
        method=recipe.method.kind,
        decoder=recipe.decoder.kind,
        classes=classes,
        colors=palette(classes),
        task=page_name(recipe),
        label_unit=run["data"]["unit"],
        value_unit=getattr(recipe.task, "unit", ""),
        backbone=Backbone(
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
        history=_history(folder.history),
        metrics={part: _numbers(metrics[part]) for part in tested},
        confusion=metrics.get("confusion", {}),
        details={
            name: found
            for name, found in metrics.items()
            if name not in (*METRIC_SECTIONS, "confusion")
        },
        regions={
            name: _numbers(found)
            for name, found in metrics.get("regions", {}).get(tested[-1], {}).items()
        },
        gap=_gap(metrics.get("gap")),
        best=examples.best,
        worst=examples.worst,
        data={
            part: SplitSummary(scenes, run["data"]["class_counts"][part])
            for part, scenes in run["data"]["parts"].items()
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


def _gap(found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """With numbers in place of what JSON has for NaN."""
    if found is None:
        return None
    known = {name: pair for name, pair in found["intervals"].items() if None not in pair}
    return {
        **found,
        "seen": _numbers(found["seen"]),
        "unseen": _numbers(found["unseen"]),
        "intervals": known,
    }


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
