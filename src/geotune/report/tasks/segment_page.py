"""Report of segmentation: windows with predictions and errors, IoU per class."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.targets import PixelClasses
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import (
    ERROR_COLOR,
    blocks,
    class_map,
    overlay_errors,
    shrink_factor,
    subsample,
)
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage
from geotune.report.tasks.class_summary import (
    PRECISION,
    RECALL,
    class_context,
    class_result,
    common_class,
)
from geotune.types import IGNORE, Target
from geotune.utils.colors import Color, css
from geotune.utils.headline import lowest_class


def draw_masks(
    image: Picture,
    label: NDArray[np.integer],
    prediction: NDArray[np.integer],
    colors: list[Color] | tuple[Color, ...],
) -> tuple[float, dict[str, Picture]]:
    """The share of incorrect pixels (NaN without labels) and four pictures of one size.

    Args:
        image: `(H, W, 3)`.
        label: class indices `(H, W)`, `IGNORE` for unlabelled pixels.
        prediction: class indices `(H, W)`.
        colors: of the classes.

    Raises `ValueError` if the sizes differ.
    """
    if image.shape != (*label.shape, 3) or prediction.shape != label.shape:
        raise ValueError(
            f"image {image.shape}, label {label.shape} and prediction {prediction.shape} must be "
            "(H, W, 3), (H, W) and (H, W)"
        )
    labelled = label != IGNORE
    errors = labelled & (prediction != label)
    step = shrink_factor(label.shape)
    picture = blocks(image, step).mean(axis=(1, 3)).round().astype(np.uint8)
    share = float(errors.sum() / labelled.sum()) if labelled.any() else math.nan
    return share, {
        "image": picture,
        "label": class_map(subsample(label, step), colors),
        "prediction": class_map(subsample(prediction, step), colors),
        "errors": overlay_errors(picture, blocks(errors, step).max(axis=(1, 3))),
    }


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, PixelClasses)
    share, pictures = draw_masks(
        shown.image, shown.target.mask, shown.prediction, tuple(shown.colors)
    )
    errors = fmt.percent(share)
    return f"mean IoU {fmt.score(shown.score)} · {errors} of labelled pixels incorrect", pictures


def _has_foreground(target: Target, common: int) -> bool:
    assert isinstance(target, PixelClasses)
    return bool(((target.mask != common) & (target.mask != IGNORE)).any())


def _overall(report: Report, split: str, value: float) -> str:
    mean = f"the mean over all classes is {fmt.score(value)} (1 is perfect)."
    lowest = lowest_class(report.metrics[split], "miou")
    first = f"The mean IoU{mean.removeprefix('the mean')}"
    if lowest is not None:
        first = f"The lowest IoU, of {lowest[1]}, is {fmt.score(lowest[2])}; {mean}"
    return first + _at_threshold(report, split) + common_class(report, split, "iou", "pixel")


def _at_threshold(report: Report, split: str) -> str:
    """The IoU of the rarest class at the threshold of the validation, if that changes it."""
    chosen = next(iter(report.details.get("class_thresholds", {}).get(split, ())), None)
    if chosen is None or fmt.score(chosen["iou"]) == fmt.score(chosen["iou_most_likely"]):
        return ""
    return (
        f" If every pixel with a probability of at least {chosen['threshold']:g} is mapped as "
        f"{chosen['class']} (geotune predict --threshold {chosen['class']}=auto), its IoU is "
        f"{fmt.score(chosen['iou'])}."
    )


def _result(report: Report, split: str) -> list[str]:
    return class_result(report, split, "iou", "pixel") if split in report.confusion else []


PAGE = TaskPage(
    main="miou",
    title="mean IoU",
    lower_is_better=False,
    per_class_metric="iou",
    label_unit="pixel",
    legend=True,
    template="classes.html.j2",
    glossary=(
        (
            "IoU",
            "Intersection over union: the area where prediction and label of a class overlap, "
            "divided by the area that either covers. 1 is a perfect match, 0 is no overlap. For "
            "objects of a few pixels, an error of one pixel already lowers it a lot.",
        ),
        (
            "F1",
            "The harmonic mean of precision and recall. Also called Dice score; never lower than "
            "IoU.",
        ),
        (RECALL[0], RECALL[1].format("pixel")),
        (PRECISION[0], PRECISION[1].format("pixel")),
    ),
    purpose=lambda report: f"classifies every pixel as {fmt.listing(list(report.classes), 'or')}",
    result=_result,
    overall=_overall,
    context=lambda report, splits: class_context(report, splits, "iou", "IoU"),
    draw=_draw,
    is_informative=_has_foreground,
    picture_key=((css(ERROR_COLOR), "incorrect, in the last picture"),),
)
