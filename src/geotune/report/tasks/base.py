"""Where a task plugs into the report."""

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
class Shown:
    """One validation window, to be drawn.

    Attributes:
        image: as people can look at it.
        target: its label.
        prediction: what `Task.predict` makes of it.
        score: what `Task.score` says of it.
        classes: names of what the task tells apart, or of its one quantity.
        colors: of the classes.
        unit: of a quantity.
        details: what the task tells of all windows beside its metrics.
    """

    image: Picture
    target: Target
    prediction: NDArray[Any]
    score: float
    classes: Sequence[str]
    colors: Sequence[Color]
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskPage:
    """What a task shows.

    Attributes:
        main: the metric that the run is judged by, and the first of its tile and curve.
        title: what people call it.
        lower: whether it shrinks as the model gets better.
        each: the metric of each class, whose curves are drawn thin; None where there are none.
        counted: what one of the label's parts is: `pixel`, `image`, `object`.
        legend: whether the windows and the data have classes in colours.
        template: of the section of results, beside this file.
        words: what the words on the page mean.
        purpose: what the model says, as the end of "This model ...".
        result: sentences about what it finds, of a report and a part.
        overall: one sentence about the main metric, of a report and its value.
        context: what the template needs beside the report, of a report and the parts evaluated.
        draw: a caption and the pictures of a window by title; from two on they stand in a row.
        telling: whether a window shows more than the commonest class, of its target and that
            class's index.
    """

    main: str
    title: str
    lower: bool
    each: str | None
    counted: str
    legend: bool
    template: str
    words: Sequence[tuple[str, str]]
    purpose: Callable[[Report], str]
    result: Callable[[Report, str], list[str]]
    overall: Callable[[Report, str, float], str]
    context: Callable[[Report, Sequence[str]], dict[str, Any]]
    draw: Callable[[Shown], tuple[str, Mapping[str, Picture]]]
    telling: Callable[[Target, int], bool]


def find_page(name: str) -> TaskPage:
    """The page of a task, by its name in `registry.TASK_PAGES`."""
    page: TaskPage = TASK_PAGES[name].load()
    return page
