"""Segmentation on the page: windows with their maps and mistakes, IoU class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.targets import PixelClasses
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import blocks, class_map, overlay_errors, shrinking, subsample
from geotune.report.tasks.base import Picture, Shown, TaskPage
from geotune.report.tasks.class_summary import (
    FOUND,
    RIGHT,
    class_context,
    class_result,
    common_class,
)
from geotune.types import IGNORE, Target
from geotune.utils.colors import Color


def draw_masks(
    image: Picture,
    label: NDArray[np.integer],
    prediction: NDArray[np.integer],
    colors: list[Color] | tuple[Color, ...],
) -> tuple[float, dict[str, Picture]]:
    """The share of wrong pixels, NaN where none is labelled, and four pictures of one size.

    Args:
        image: `(H, W, 3)`.
        label: class indices `(H, W)`, `IGNORE` where there is none.
        prediction: class indices `(H, W)`.
        colors: of the classes.

    Raises `ValueError` where the sizes differ.
    """
    if image.shape != (*label.shape, 3) or prediction.shape != label.shape:
        raise ValueError(
            f"image {image.shape}, label {label.shape} and prediction {prediction.shape} must be "
            "(H, W, 3), (H, W) and (H, W)"
        )
    counted = label != IGNORE
    wrong = counted & (prediction != label)
    step = shrinking(label.shape)
    picture = blocks(image, step).mean(axis=(1, 3)).round().astype(np.uint8)
    share = float(wrong.sum() / counted.sum()) if counted.any() else math.nan
    return share, {
        "image": picture,
        "label": class_map(subsample(label, step), colors),
        "prediction": class_map(subsample(prediction, step), colors),
        "mistakes": overlay_errors(picture, blocks(wrong, step).max(axis=(1, 3))),
    }


def _draw(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, PixelClasses)
    share, pictures = draw_masks(
        shown.image, shown.target.mask, shown.prediction, tuple(shown.colors)
    )
    wrong = fmt.percent(share)
    return f"mean IoU {fmt.score(shown.score)} · {wrong} of the labelled pixels wrong", pictures


def _telling(target: Target, common: int) -> bool:
    assert isinstance(target, PixelClasses)
    return bool(((target.mask != common) & (target.mask != IGNORE)).any())


def _overall(report: Report, part: str, value: float) -> str:
    return (
        "The overlap of map and labels, averaged over the classes (mean IoU), is "
        f"{fmt.score(value)}; 1 would be perfect." + common_class(report, part, "iou", "pixel")
    )


def _result(report: Report, part: str) -> list[str]:
    return class_result(report, part, "iou", "pixel") if part in report.confusion else []


PAGE = TaskPage(
    main="miou",
    title="mean IoU",
    lower=False,
    each="iou",
    counted="pixel",
    legend=True,
    template="classes.html.j2",
    words=(
        (
            "IoU",
            "Overlap of the model's map of a class with the label's, divided by the area that "
            "either covers: 1 is a perfect match, 0 none at all. For things of a few pixels, being "
            "one pixel off already costs much of it.",
        ),
        (
            "F1",
            "Another measure of the same overlap, kinder to small differences; always at least as "
            "high as IoU.",
        ),
        (FOUND[0], FOUND[1].format("pixel")),
        (RIGHT[0], RIGHT[1].format("pixel")),
    ),
    purpose=lambda report: (
        f"says for every pixel whether it is {fmt.listing(list(report.classes), 'or')}"
    ),
    result=_result,
    overall=_overall,
    context=lambda report, parts: class_context(report, parts, "iou", "IoU"),
    draw=_draw,
    telling=_telling,
)
