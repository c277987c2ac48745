"""Report of image classification: images with predictions, F1 per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.targets import ImageClass, ImageClasses
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import shrunk
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage
from geotune.report.tasks.class_summary import (
    PRECISION,
    RECALL,
    class_context,
    class_result,
    common_class,
)


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ImageClass)
    label, predicted = shown.target.index, int(np.argmax(shown.prediction))
    probability = fmt.percent(float(shown.prediction[predicted]))
    result = "correct" if predicted == label else f"predicted {shown.classes[predicted]}"
    caption = f"{shown.classes[label]}: {result} (probability {probability})"
    return caption, {"image": shrunk(shown.image)}


def _draw_multilabel(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ImageClasses)

    def names(present: NDArray[np.bool_]) -> str:
        chosen = [name for name, yes in zip(shown.classes, present, strict=True) if yes]
        return fmt.listing(chosen) or "none"

    caption = f"label {names(shown.target.present)}; prediction {names(shown.prediction > 0.5)}"
    return caption, {"image": shrunk(shown.image)}


def _overall(report: Report, split: str, value: float) -> str:
    return (
        f"The mean F1 over all classes is {fmt.score(value)}; the overall accuracy is "
        f"{fmt.percent(report.metrics[split].get('accuracy'))}."
        + common_class(report, split, "f1", "image")
    )


def _overall_multilabel(report: Report, split: str, value: float) -> str:
    del report, split
    return (
        f"The mean average precision over all classes is {fmt.score(value)} (1: every image of a "
        "class is ranked above every image without it)."
    )


PAGE = TaskPage(
    main="f1",
    title="mean F1",
    lower_is_better=False,
    per_class_metric="f1",
    label_unit="image",
    legend=True,
    template="classes.html.j2",
    glossary=(
        (
            "F1",
            "The harmonic mean of precision and recall of a class: 1 is perfect; it is low if "
            "either of them is low.",
        ),
        (RECALL[0], RECALL[1].format("image")),
        (PRECISION[0], PRECISION[1].format("image")),
    ),
    purpose=lambda report: f"classifies each image as {fmt.listing(list(report.classes), 'or')}",
    result=lambda report, split: (
        class_result(report, split, "f1", "image") if split in report.confusion else []
    ),
    overall=_overall,
    context=lambda report, splits: class_context(report, splits, "f1", "F1"),
    draw=_draw,
    is_informative=lambda target, common: True,
)

MULTILABEL = replace(
    PAGE,
    main="ap",
    title="mean average precision",
    per_class_metric="ap",
    glossary=(
        (
            "Average precision",
            "Images are ranked by the predicted probability of a class. Average precision is the "
            "mean of the precision at the rank of each image of the class: 1 if all of them are "
            "ranked first. It needs no threshold.",
        ),
        *PAGE.glossary,
    ),
    purpose=lambda report: (
        f"predicts which of {fmt.listing(list(report.classes))} each image contains"
    ),
    result=lambda report, split: class_result(report, split, "ap", "image"),
    overall=_overall_multilabel,
    context=lambda report, splits: class_context(report, splits, "ap", "Average precision"),
    draw=_draw_multilabel,
)
