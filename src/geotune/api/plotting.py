"""Plots of runs, scenes and samples with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from geotune.api.run import Run, TrainedModel
from geotune.boxes.oriented import as_oriented, corners
from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.labels.targets import (
    ImageClass,
    ImageClasses,
    ImageValue,
    PixelClasses,
    PixelValues,
)
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.report.rgb import to_rgb
from geotune.types import IGNORE, Sample
from geotune.utils.colors import palette


def plot(
    item: Run | Scene | Sample,
    *,
    model: TrainedModel | None = None,
    window: Window | None = None,
    bands: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Figure:
    """Plot a run's training curves, or a window with its labels and its prediction.

    Args:
        item: a run, a scene, or a sample.
        model: adds a panel with its prediction; of objects, those that `geotune.predict` writes by
            default, with at least `model.score_thresholds`.
        window: of a scene; by default all of it.
        bands: channel names of a sample; by default those of `model`.
        classes: names of a sample's classes; by default those of `model`.

    Returns:
        A matplotlib figure; save it with `figure.savefig("plot.png")`.
    """
    if isinstance(item, Run):
        return _plot_history(item)
    if isinstance(item, Scene):
        window = window or Window(0, 0, *item.shape)
        image, target = item.read(window)
        bands, classes = bands or item.raster.bands, classes or item.labels.classes
        item = Sample(image, target, item.name, item.group)
    if model is not None:
        bands, classes = bands or model.bands, classes or model.classes
    pixels = item.image if item.image.ndim == 3 else item.image[:, -1]
    bands = bands or [f"band{i + 1}" for i in range(len(pixels))]
    panels = 2 if model is None else 3
    figure = Figure(figsize=(4 * panels, 4.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, panels)
    figure.suptitle(f"{item.name}\n")  # the line keeps it clear of the titles in notebooks
    rgb = to_rgb(pixels, bands)
    for ax, title in zip(axes, ("image", "labels", "prediction"), strict=False):
        ax.imshow(rgb)
        ax.set_title(title)
        ax.set_axis_off()
    _draw_target(axes[1], item.target, classes)
    if model is not None:
        _draw_prediction(axes[2], model(item.image), model)
    return figure


def _plot_history(run: Run) -> Figure:
    rows = run.history
    losses = [name for name in rows[0] if "loss" in name]
    overall = [name for name in rows[0] if name.startswith("val/") and name.count("/") == 1]
    scores = [name for name in overall if name not in losses][:3]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(rows) + 1)
    for ax, group in ((left, losses), (right, scores)):
        for name in group:
            ax.plot(epochs, [row[name] for row in rows], marker=".", label=name)
        ax.axvline(run.summary["best_epoch"], color="0.7", linewidth=1, label="best epoch")
        ax.set_xlabel("epoch")
        ax.legend(frameon=False)
    figure.suptitle(run.path.name)
    return figure


def _draw_target(ax: Axes, target: Any, classes: Sequence[str]) -> None:
    if isinstance(target, PixelClasses):
        _draw_mask(ax, target.mask, classes)
    elif isinstance(target, PixelValues):
        ax.figure.colorbar(ax.imshow(target.values), ax=ax, shrink=0.7)
    elif isinstance(target, ObjectTarget):
        _draw_boxes(ax, target.boxes, "tab:green")
    elif isinstance(target, ImageClass):
        ax.set_title(classes[target.index] if classes else f"class {target.index}")
    elif isinstance(target, ImageClasses):
        present = np.flatnonzero(target.present).tolist()
        ax.set_title(", ".join(classes[i] if classes else f"class {i}" for i in present) or "none")
    elif isinstance(target, ImageValue):
        ax.set_title(f"{target.value:g}")


def _draw_prediction(ax: Axes, prediction: Any, model: TrainedModel) -> None:
    kind = model.task.output_kind
    if kind == "classes":
        _draw_mask(ax, prediction.argmax(axis=0).astype(np.uint8), model.classes)
    elif kind == "values":
        ax.figure.colorbar(ax.imshow(prediction[0]), ax=ax, shrink=0.7)
    elif kind == "objects":
        least = [model.score_thresholds[name] for name in model.classes]
        limits = prediction.scores.new_tensor(least)[prediction.classes]
        kept = prediction[prediction.scores >= limits]
        _draw_boxes(ax, np.asarray(kept.boxes.cpu()), "tab:orange")
    else:
        pairs = zip(model.classes, np.ravel(prediction), strict=False)
        ax.set_title(", ".join(f"{name} {value:.2f}" for name, value in pairs))


def _draw_mask(ax: Axes, mask: Any, classes: Sequence[str]) -> None:
    count = len(classes) or int(mask[mask != IGNORE].max(initial=0)) + 1
    names = classes or [f"class {i}" for i in range(count)]
    colors = [(r / 255, g / 255, b / 255) for r, g, b in palette(names)]
    shown = np.ma.masked_equal(mask, IGNORE)
    ax.imshow(
        shown, cmap=ListedColormap(colors), vmin=-0.5, vmax=count - 0.5, interpolation="nearest"
    )
    handles = [Patch(color=color, label=name) for color, name in zip(colors, names, strict=True)]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False)


def _draw_boxes(ax: Axes, boxes: Any, color: str) -> None:
    if boxes.shape[1] == 2:
        ax.plot(boxes[:, 0], boxes[:, 1], "o", color=color, fillstyle="none")
        return
    for outline in corners(as_oriented(np.asarray(boxes, np.float64))):
        ax.add_patch(Polygon(outline, fill=False, edgecolor=color))
