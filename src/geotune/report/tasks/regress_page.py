"""Regression on the page: label against prediction, errors, windows with both maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geotune.data.labels.targets import ImageValue, PixelValues
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import difference_map, shrunk, value_map
from geotune.report.scatter import histogram, scatter
from geotune.report.split_names import PARTS, scenes_of
from geotune.report.tasks.base import Picture, Shown, TaskPage

FIGURES = {
    "rmse": "Root mean square error",
    "mae": "Mean absolute error",
    "bias": "Mean of predicted minus labelled",
    "r2": "R²",
}


def _draw(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    error = f"{fmt.number(-shown.score)} {shown.unit}".rstrip()
    if isinstance(shown.target, ImageValue):
        said = f"labelled {fmt.number(shown.target.value)}, "
        said += f"predicted {fmt.number(float(shown.prediction))} {shown.unit}".rstrip()
        return said, {"image": shrunk(shown.image)}
    assert isinstance(shown.target, PixelValues)
    label = shown.target.values
    low, high = (float(edge) for edge in np.nanpercentile(label, (1, 99)))
    span = f"{fmt.number(low)} to {fmt.number(high)}"
    pictures = {
        "image": shrunk(shown.image),
        f"label ({span})": value_map(label, low, high),
        "prediction (same colours)": value_map(shown.prediction, low, high),
        "too high in red, too low in blue": difference_map(
            shown.prediction - label, (high - low) / 2
        ),
    }
    return f"off by {error} on average", pictures


def _measured(report: Report) -> str:
    return f"{report.classes[0]} in {report.value_unit}" if report.value_unit else report.classes[0]


def _result(report: Report, part: str) -> list[str]:
    values = report.metrics[part]
    if fmt.missing(values.get("mae")):
        return []
    unit = f" {report.value_unit}" if report.value_unit else ""
    text = (
        f"On {scenes_of(report, part, 'held-out ')}, it is off by {fmt.number(values['mae'])}{unit}"
        " on average"
    )
    bias = values.get("bias", 0.0)
    if abs(bias) > values["mae"] / 2:
        much = "high" if bias > 0 else "low"
        text += f", and mostly too {much} (by {fmt.number(abs(bias))}{unit} in the mean)"
    return [text + "."]


def _overall(report: Report, part: str, value: float) -> str:
    unit = f" {report.value_unit}" if report.value_unit else ""
    text = f"The root mean square error is {fmt.number(value)}{unit}"
    r2 = report.metrics[part].get("r2")
    if r2 is None or fmt.missing(r2):
        return f"{text}."
    if r2 <= 0:
        return f"{text}: no better than always saying the mean of the labels (R² {r2:.2f})."
    return f"{text}; it explains {fmt.percent(r2)} of how the labels vary (R²)."


def number_context(
    report: Report, parts: Sequence[str], figures: Mapping[str, str], axis: str
) -> dict[str, Any]:
    """For `numbers.html.j2`: a row for each figure, and label against prediction, by part."""
    pairs = {part: report.details.get("pairs", {}).get(part, []) for part in parts}
    return {
        "figure_rows": [
            (title, [fmt.number(report.metrics[part].get(key)) for part in parts])
            for key, title in figures.items()
        ],
        "evaluated_parts": list(parts),
        "pair_figures": {
            part: [
                scatter(found, axis, f"pairs-{part}"),
                histogram([b - a for a, b in found], f"errors-{part}"),
            ]
            for part, found in pairs.items()
            if found
        },
        "part_titles": PARTS,
    }


PAGE = TaskPage(
    main="rmse",
    title="RMSE",
    lower=True,
    each=None,
    counted="pixel",
    legend=False,
    template="numbers.html.j2",
    words=(
        (
            "Root mean square error (RMSE)",
            "How far the model is off, in the labels' unit; a few large errors weigh more in it "
            "than in the mean absolute error.",
        ),
        ("Mean absolute error", "How far the model is off on average, in the labels' unit."),
        (
            "R²",
            "The share of the labels' variation that the model explains: 1 is perfect, 0 no better "
            "than their mean, and it can be below 0.",
        ),
        (
            "Label against prediction",
            "A dot is a pixel or an image, drawn by chance where there are many. On the line the "
            "two agree; a cloud that lies flatter than the line says that the model keeps to the "
            "middle.",
        ),
    ),
    purpose=lambda report: f"gives {_measured(report)} for every {report.label_unit}",
    result=_result,
    overall=_overall,
    context=lambda report, parts: number_context(report, parts, FIGURES, _measured(report)),
    draw=_draw,
    telling=lambda target, common: True,
)
