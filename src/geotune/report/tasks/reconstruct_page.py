"""Report of masked reconstruction: hidden patches and what the model made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geotune.data.labels.pixel_data import HIDDEN, NO_DATA, PixelData
from geotune.report import number_format as fmt
from geotune.report.context import Report, scenes_of
from geotune.report.images import shrunk, value_map
from geotune.report.rgb import to_rgb
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage
from geotune.report.tasks.regress_page import number_context

METRIC_TITLES = {
    "masked_l1": "Mean absolute error of hidden pixels (normalised values)",
    "cosine_distance": "Cosine distance to the teacher's features",
}
HIDDEN_GREY = 128


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, PixelData)
    states = shown.target.states
    predicted, image = shown.prediction  # (C, H, W), dates are further bands
    known, hidden = states != NO_DATA, (states == HIDDEN).any(axis=0)
    low, high = (edge(image, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    composed = np.where(hidden, predicted.clip(low, high), image)
    dates = len(image) // len(shown.bands)
    last = slice(dates - 1, None, dates)  # of each band
    # side by side, so that they share one stretch; twice, for one checkerboard of missing pixels
    row = [np.where(known, pixels, np.nan)[last] for pixels in (image, image, composed)]
    whole, _, guessed = np.split(to_rgb(np.concatenate(row, axis=2), shown.bands), 3, axis=1)
    visible = whole.copy()
    visible[hidden] = HIDDEN_GREY
    error = np.where(states == HIDDEN, abs(predicted - image), np.nan)
    missing = np.isnan(error).all(axis=0)
    mean = np.nanmean(np.where(missing, 0.0, error), axis=0)
    mean[missing] = np.nan
    pictures = {
        "image": shrunk(whole),
        "visible to the model": shrunk(visible),
        "reconstruction": shrunk(guessed),
        "error of hidden pixels (dark: 0, bright: 1 or more)": value_map(mean, 0.0, 1.0),
    }
    return f"mean absolute error {fmt.number(-shown.score)}", pictures


def _result(report: Report, split: str) -> list[str]:
    value = report.metrics[split].get("cosine_distance")
    if value is None or fmt.missing(value):
        return []
    return [
        f"On {scenes_of(report, split, 'held-out ')}, the cosine distance of its features of the "
        f"visible patches to those that the original backbone has of whole images is "
        f"{fmt.number(value)}."
    ]


def _overall(report: Report, split: str, value: float) -> str:
    return (
        f"The mean absolute error of hidden pixels is {fmt.number(value)} in normalised values, "
        "whose standard deviation is about 1."
    )


def _context(report: Report, splits: Sequence[str]) -> dict[str, Any]:
    titles = {key: t for key, t in METRIC_TITLES.items() if key in report.metrics[splits[0]]}
    return number_context(report, splits, titles, report.classes[0])


PAGE = TaskPage(
    main="masked_l1",
    title="Error of hidden pixels",
    lower_is_better=True,
    per_class_metric=None,
    label_unit="pixel",
    legend=False,
    template="numbers.html.j2",
    glossary=(
        (
            "Masked reconstruction",
            "Patches of the image are hidden from the model, which predicts their pixels from "
            "the others. It needs no labels.",
        ),
        (
            "Teacher",
            "The backbone before this training. It sees the whole image and does not change; the "
            "model learns to find the same features in the visible patches alone.",
        ),
        (
            "Cosine distance",
            "1 minus the cosine of the angle between two feature vectors: 0 if they point in the "
            "same direction, 1 if they have nothing in common.",
        ),
    ),
    purpose=lambda report: "reconstructs hidden patches of images, to continue a pretraining",
    result=_result,
    overall=_overall,
    context=_context,
    draw=_draw,
    is_informative=lambda target, common: True,
)
