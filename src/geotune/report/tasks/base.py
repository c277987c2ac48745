"""The interface of a task to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.registry import TASK_PAGES
from geotune.report.context import Report
from geotune.types import Target
from geotune.utils.colors import Color

Picture = NDArray[np.uint8]
"""`(H, W, 3)`, red, green and blue."""


@dataclass(frozen=True)
class DisplayedWindow:
    """One validation window and its prediction.

    Attributes:
        image: RGB, for display.
        target: its label.
        prediction: the output of `Task.predict`.
        score: the output of `Task.score`.
        classes: class names, or the name of the one predicted quantity.
        colors: one per class.
        unit: of a predicted quantity.
        details: further results of the task on all windows, such as score thresholds.
        bands: names of the image's bands.
    """

    image: Picture
    target: Target
    prediction: NDArray[Any]
    score: float
    classes: Sequence[str]
    colors: Sequence[Color]
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    bands: Sequence[str] = ()


@dataclass(frozen=True)
class TaskPage:
    """The content that a task adds to the report.

    Attributes:
        main: the main metric, shown first and as a curve.
        title: its name for display.
        lower_is_better: whether lower values are better.
        per_class_metric: the metric per class, drawn as thin curves; None without classes.
        label_unit: `pixel`, `image` or `object`.
        legend: whether classes are shown in colours.
        template: of the results section, in this folder.
        glossary: terms and their definitions.
        purpose: completes the sentence "This model ...".
        result: sentences about the results, given report and split.
        overall: one sentence about the main metric, given report, split and value.
        context: further template variables, given report and evaluated splits.
        draw: caption and pictures by title of a window.
        is_informative: whether a target holds more than the most common class, whose index is the
            second argument.
        picture_key: colours of the pictures besides those of classes, as CSS backgrounds, and what
            they mean.
    """

    main: str
    title: str
    lower_is_better: bool
    per_class_metric: str | None
    label_unit: str
    legend: bool
    template: str
    glossary: Sequence[tuple[str, str]]
    purpose: Callable[[Report], str]
    result: Callable[[Report, str], list[str]]
    overall: Callable[[Report, str, float], str]
    context: Callable[[Report, Sequence[str]], dict[str, Any]]
    draw: Callable[[DisplayedWindow], tuple[str, Mapping[str, Picture]]]
    is_informative: Callable[[Target, int], bool]
    picture_key: Sequence[tuple[str, str]] = ()


def find_page(name: str) -> TaskPage:
    """The page of a task, by its name in `registry.TASK_PAGES`."""
    page: TaskPage = TASK_PAGES[name].load()
    return page
