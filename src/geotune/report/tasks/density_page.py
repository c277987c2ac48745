"""Report of counting: predicted versus labelled counts, windows with both density maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geotune.data.labels.targets import ObjectDensity
from geotune.report import number_format as fmt
from geotune.report.context import Report, scenes_of
from geotune.report.images import VALUE_KEY, difference_map, dots, shrunk, value_map
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage
from geotune.report.tasks.regress_page import number_context

METRIC_TITLES = {
    "counted": "Total predicted count",
    "labelled": "Total labelled count",
    "mae": "Mean absolute error of the count per window",
    "rmse": "Root mean square error of the count per window",
    "bias": "Bias of the count per window (prediction minus label)",
    "relative": "Sum of absolute count errors / labelled objects",
}


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ObjectDensity)
    label = shown.target.values
    predicted = np.where(np.isnan(label), np.nan, shown.prediction)
    high = max(float(np.nanmax(label)), 1e-9)
    counted, labelled = float(np.nansum(predicted)), float(np.nansum(label))
    pictures = {
        "image": shrunk(shown.image),
        "labelled objects": dots(shown.image, shown.target.counts),
        "density, label": value_map(label, 0, high),
        "density, prediction (same colours)": value_map(predicted, 0, high),
        "error (red: too high, blue: too low)": difference_map(predicted - label, high),
    }
    return f"{shown.classes[0]}: label {labelled:.1f}, prediction {counted:.1f}", pictures


def _result(report: Report, split: str) -> list[str]:
    values = report.metrics[split]
    if fmt.missing(values.get("counted")) or fmt.missing(values.get("labelled")):
        return []
    counted, labelled = values["counted"], values["labelled"]
    text = (
        f"On {scenes_of(report, split, 'held-out ')}, the model counts {counted:,.0f} "
        f"{report.classes[0]}; {labelled:,.0f} are labelled"
    )
    if labelled:
        error = (counted - labelled) / labelled
        text += f" ({fmt.percent(abs(error))} too {'many' if error > 0 else 'few'})"
    return [text + "."]


def _overall(report: Report, split: str, value: float) -> str:
    share = fmt.percent(report.metrics[split].get("relative"))
    return (
        f"The mean absolute error of the count per window is {fmt.number(value)}. The absolute "
        f"errors of all windows add up to {share} of the labelled objects."
    )


PAGE = TaskPage(
    main="mae",
    title="count error",
    lower_is_better=True,
    per_class_metric=None,
    label_unit="object",
    legend=False,
    template="numbers.html.j2",
    glossary=(
        (
            "Density",
            "Objects per pixel. Each object is spread over the surrounding pixels and sums to one, "
            "so the sum over an area is its number of objects.",
        ),
        (
            "Mean absolute error of the count per window",
            "The mean absolute difference between predicted and labelled count of a window.",
        ),
        (
            "Predictions versus labels",
            "Each dot is a window. On the dashed line both counts are equal. A flatter cloud of "
            "dots means that the model counts too few objects in dense windows.",
        ),
    ),
    purpose=lambda report: f"counts {report.classes[0]} by predicting a density map",
    result=_result,
    overall=_overall,
    context=lambda report, splits: number_context(
        report, splits, METRIC_TITLES, f"{report.classes[0]} per window"
    ),
    draw=_draw,
    is_informative=lambda target, common: True,
    picture_key=VALUE_KEY,
)
