"""Classification on the page: images with what they are taken for, F1 class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.targets import ImageClass, ImageClasses
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import shrunk
from geotune.report.tasks.base import Picture, Shown, TaskPage
from geotune.report.tasks.class_summary import (
    FOUND,
    RIGHT,
    class_context,
    class_result,
    common_class,
)


def _draw(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ImageClass)
    label, taken = shown.target.index, int(np.argmax(shown.prediction))
    share = fmt.percent(float(shown.prediction[taken]))
    said = "right" if taken == label else f"taken for {shown.classes[taken]}"
    return f"{shown.classes[label]}: {said} ({share} sure)", {"image": shrunk(shown.image)}


def _draw_several(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ImageClasses)
    marked = shown.prediction > 0.5

    def named(which: NDArray[np.bool_]) -> str:
        return fmt.listing([n for n, there in zip(shown.classes, which, strict=True) if there])

    label = named(shown.target.present) or "none"
    text = f"labelled {label}; marked {named(marked) or 'none'}"
    return text, {"image": shrunk(shown.image)}


def _overall(report: Report, part: str, value: float) -> str:
    return (
        f"F1, averaged over the classes, is {fmt.score(value)}, and "
        f"{fmt.percent(report.metrics[part].get('accuracy'))} of the images are told right."
        + common_class(report, part, "f1", "image")
    )


def _overall_several(report: Report, part: str, value: float) -> str:
    del report, part
    return (
        f"Average precision, averaged over the classes, is {fmt.score(value)}; 1 would mean that "
        "every image of a class is put before every image without it."
    )


PAGE = TaskPage(
    main="f1",
    title="mean F1",
    lower=False,
    each="f1",
    counted="image",
    legend=True,
    template="classes.html.j2",
    words=(
        (
            "F1",
            "Of a class, the harmonic mean of what is found and what is right: 1 is perfect, and "
            "it is low where either is.",
        ),
        (FOUND[0], FOUND[1].format("image")),
        (RIGHT[0], RIGHT[1].format("image")),
    ),
    purpose=lambda report: (
        f"says of an image whether it is {fmt.listing(list(report.classes), 'or')}"
    ),
    result=lambda report, part: (
        class_result(report, part, "f1", "image") if part in report.confusion else []
    ),
    overall=_overall,
    context=lambda report, parts: class_context(report, parts, "f1", "F1"),
    draw=_draw,
    telling=lambda target, common: True,
)

SEVERAL = replace(
    PAGE,
    main="ap",
    title="mean average precision",
    each="ap",
    words=(
        (
            "Average precision",
            "Images are ordered by how sure the model is of a class. Going down that order, the "
            "share of right ones among those seen is averaged over the places of the right ones: "
            "1 if all of them come first. It needs no threshold.",
        ),
        *PAGE.words,
    ),
    purpose=lambda report: (
        f"says of an image which of {fmt.listing(list(report.classes))} are in it"
    ),
    result=lambda report, part: class_result(report, part, "ap", "image"),
    overall=_overall_several,
    context=lambda report, parts: class_context(report, parts, "ap", "Average precision"),
    draw=_draw_several,
)
