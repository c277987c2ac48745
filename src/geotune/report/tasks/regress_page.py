"""Report of regression: predictions versus labels, errors, windows with both maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geotune.data.labels.targets import ImageValue, PixelValues
from geotune.report import number_format as fmt
from geotune.report.context import Report, scenes_of
from geotune.report.images import VALUE_KEY, difference_map, shrunk, value_map
from geotune.report.scatter import histogram, scatter
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage

METRIC_TITLES = {
    "rmse": "Root mean square error",
    "mae": "Mean absolute error",
    "bias": "Bias (mean of prediction minus label)",
    "r2": "R²",
}


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    error = f"{fmt.number(-shown.score)} {shown.unit}".rstrip()
    if isinstance(shown.target, ImageValue):
        caption = f"label {fmt.number(shown.target.value)}, "
        caption += f"prediction {fmt.number(float(shown.prediction))} {shown.unit}".rstrip()
        return caption, {"image": shrunk(shown.image)}
    assert isinstance(shown.target, PixelValues)
    label = shown.target.values
    low, high = (float(edge) for edge in np.nanpercentile(label, (1, 99)))
    span = f"{fmt.number(low)} to {fmt.number(high)}"
    pictures = {
        "image": shrunk(shown.image),
        f"label ({span})": value_map(label, low, high),
        "prediction (same colours)": value_map(shown.prediction, low, high),
        "error (red: too high, blue: too low)": difference_map(
            shown.prediction - label, (high - low) / 2
        ),
    }
    return f"mean absolute error {error}", pictures


def _quantity(report: Report) -> str:
    return f"{report.classes[0]} in {report.value_unit}" if report.value_unit else report.classes[0]


def _result(report: Report, split: str) -> list[str]:
    values = report.metrics[split]
    if fmt.missing(values.get("mae")):
        return []
    unit = f" {report.value_unit}" if report.value_unit else ""
    text = (
        f"On {scenes_of(report, split, 'held-out ')}, the mean absolute error is "
        f"{fmt.number(values['mae'])}{unit}"
    )
    bias = values.get("bias", 0.0)
    if abs(bias) > values["mae"] / 2:
        direction = "high" if bias > 0 else "low"
        text += f"; predictions are too {direction} by {fmt.number(abs(bias))}{unit} on average"
    return [text + "."]


def _overall(report: Report, split: str, value: float) -> str:
    unit = f" {report.value_unit}" if report.value_unit else ""
    text = f"The root mean square error is {fmt.number(value)}{unit}"
    r2 = report.metrics[split].get("r2")
    if r2 is None or fmt.missing(r2):
        return f"{text}."
    if r2 <= 0:
        return f"{text}: no better than predicting the mean of the labels (R² {r2:.2f})."
    return f"{text}; the model explains {fmt.percent(r2)} of the variance of the labels (R²)."


def number_context(
    report: Report, splits: Sequence[str], titles: Mapping[str, str], axis: str
) -> dict[str, Any]:
    """Variables of `numbers.html.j2`: a row per metric, and plots of each split."""
    pairs = {split: report.details.get("pairs", {}).get(split, []) for split in splits}
    return {
        "metric_rows": [
            (title, [fmt.number(report.metrics[split].get(key)) for split in splits])
            for key, title in titles.items()
        ],
        "pair_plots": {
            split: [
                scatter(values, axis, f"pairs-{split}"),
                histogram([b - a for a, b in values], f"errors-{split}"),
            ]
            for split, values in pairs.items()
            if values
        },
    }


PAGE = TaskPage(
    main="rmse",
    title="RMSE",
    lower_is_better=True,
    per_class_metric=None,
    label_unit="pixel",
    legend=False,
    template="numbers.html.j2",
    glossary=(
        (
            "Root mean square error (RMSE)",
            "The root of the mean squared error, in the unit of the labels. It gives large errors "
            "more weight than the mean absolute error does.",
        ),
        ("Mean absolute error", "The mean size of the errors, in the unit of the labels."),
        (
            "R²",
            "Coefficient of determination: the share of the variance of the labels that the model "
            "explains. 1 is perfect, 0 is as good as predicting their mean; it can be negative.",
        ),
        (
            "Predictions versus labels",
            "Each dot is a pixel or an image, a random sample if there are many. On the dashed "
            "line, prediction and label are equal. A flatter cloud of dots means that the model "
            "predicts values too close to the mean.",
        ),
    ),
    purpose=lambda report: f"predicts {_quantity(report)} for every {report.label_unit}",
    result=_result,
    overall=_overall,
    context=lambda report, splits: number_context(report, splits, METRIC_TITLES, _quantity(report)),
    draw=_draw,
    is_informative=lambda target, common: True,
    picture_key=VALUE_KEY,
)
