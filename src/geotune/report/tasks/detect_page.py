"""Detection on the page: boxes on windows, precision against recall, figures by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from geotune.boxes import structures
from geotune.boxes.oriented import centres
from geotune.data.annotations.object_target import ObjectTarget
from geotune.metrics.matching import FALSE as NOTHING
from geotune.metrics.matching import match_boxes, match_points
from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.images import shrunk
from geotune.report.plots import Curve, new_axes, svg
from geotune.report.split_names import scenes_of
from geotune.report.tasks.base import Picture, Shown, TaskPage
from geotune.report.tasks.boxes_overlay import FALSE, MISSED, TRUE, UNCOUNTED, boxes_on
from geotune.report.tasks.regress_page import number_context

IOU = 0.5
FIGURES = {
    "f1": "F1",
    "precision": "Right (precision)",
    "recall": "Found (recall)",
    "rmse_m": "Distance of what was found, root mean square, metres",
    "count_mae": "Mean absolute error of a window's count",
    "count_bias": "Mean of counted minus labelled, a window",
    "threshold": "Score from which on detections count",
}


def _draw(shown: Shown) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ObjectTarget)
    target, details = shown.target, shown.details
    lowest = [details["threshold"].get(name) for name in shown.classes]
    least = np.array([np.inf if value is None else value for value in lowest])
    boxes, scores = shown.prediction[:, :-2], shown.prediction[:, -2]
    classes = shown.prediction[:, -1].astype(np.int64)
    kept = scores >= least[classes] - 1e-6
    boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    radius = details.get("radius_px")
    if radius is None:
        found = _by_overlap(boxes, scores, classes, target)
    else:
        found = _by_place(boxes, classes, target, float(radius))
    true = np.unique(found[found >= 0])
    missed = np.setdiff1d(np.flatnonzero(target.counted), true)
    drawn = {
        UNCOUNTED: target.boxes[~target.counted],
        MISSED: target.boxes[missed],
        FALSE: boxes[found == NOTHING],
        TRUE: boxes[found >= 0],
    }
    said = (
        f"{len(true)} found, {int((found == NOTHING).sum())} false, {len(missed)} missed"
        f" · F1 at best {fmt.score(shown.score)}"
    )
    picture = boxes_on(shown.image, drawn, points=radius is not None)
    if picture.shape == shown.image.shape:
        return said, {"image": shrunk(shown.image), "objects": picture}
    factor = picture.shape[0] // shown.image.shape[0]
    large = shown.image.repeat(factor, axis=0).repeat(factor, axis=1)
    return said, {"image": large if factor > 1 else shrunk(shown.image), "objects": picture}


def _by_overlap(
    boxes: Any, scores: Any, classes: Any, target: ObjectTarget
) -> np.ndarray[Any, Any]:
    found = structures.Detections(
        torch.from_numpy(boxes.astype(np.float64)),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
    )
    objects = structures.GroundTruthObjects(
        torch.from_numpy(target.boxes),
        torch.from_numpy(target.classes),
        torch.from_numpy(~target.counted),
    )
    return match_boxes(found, objects, [IOU])[:, 0]


def _by_place(
    boxes: Any, classes: Any, target: ObjectTarget, radius: float
) -> np.ndarray[Any, Any]:
    found = np.full(len(boxes), NOTHING, dtype=np.int64)
    for index in np.unique(classes):
        mine = np.flatnonzero(classes == index)
        theirs = np.flatnonzero(target.counted & (target.classes == index))
        here = np.asarray(centres(boxes[mine]), dtype=np.float64)
        there = np.asarray(centres(target.boxes[theirs]), dtype=np.float64)
        i, j = match_points(here, there, radius)
        found[mine[i]] = theirs[j]
    return found


def _telling(target: Any, common: int) -> bool:
    return bool(target.counted.any())


def _named(report: Report) -> str:
    return fmt.listing(list(report.classes), "and")


def _result(report: Report, part: str) -> list[str]:
    counts = report.details.get("counts", {}).get(part, {})
    said = []
    for name, count in counts.items():
        there, marked = count["true"] + count["missed"], count["true"] + count["false"]
        if not there:
            said.append(f"There is no {name} in {scenes_of(report, part, 'held-out ')}.")
            continue
        found = f"it finds {count['true']} of {there} labelled objects of class {name}"
        right = f", and {count['true']} of the {marked} that it marks are right" if marked else ""
        said.append(f"On {scenes_of(report, part, 'held-out ')}, {found}{right}.")
    return said


def _result_of_points(report: Report, part: str) -> list[str]:
    values = report.metrics[part]
    if fmt.missing(values.get("f1")):
        return []
    return [
        f"On {scenes_of(report, part, 'held-out ')}, it finds {fmt.percent(values['recall'])} of "
        f"the labelled objects, and {fmt.percent(values['precision'])} of what it marks is right; "
        f"in a window its count is off by {fmt.number(values['count_mae'])} on average."
    ]


def _context(report: Report, parts: Sequence[str]) -> dict[str, Any]:
    details = report.details
    return {
        "object_tables": {
            part: [
                {
                    "name": name,
                    "color": color,
                    "ap50": report.metrics[part].get(f"ap50/{name}"),
                    "ap": report.metrics[part].get(f"ap/{name}"),
                    "threshold": details.get("threshold", {}).get(part, {}).get(name),
                    **details.get("counts", {}).get(part, {}).get(name, {}),
                }
                for name, color in zip(report.classes, report.colors, strict=True)
            ]
            for part in parts
        },
        "object_curves": {
            part: figure for part in parts if (figure := _curve(report, part)) is not None
        },
    }


def _curve(report: Report, part: str) -> Curve | None:
    curves = report.details.get("curve", {}).get(part, {})
    if not any(curve["recall"] for curve in curves.values()):
        return None
    figure, axes = new_axes("found (recall)", "right (precision)", size=(3.9, 3.5))
    for name, color in zip(report.classes, report.colors, strict=True):
        curve = curves[name]
        rgb = (color[0] / 255, color[1] / 255, color[2] / 255)
        axes.plot(curve["recall"], curve["precision"], color=rgb, linewidth=2, label=name)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    if len(report.classes) > 1:
        axes.legend(frameon=False, fontsize=10)
    words = "Precision against recall as the score falls, by class"
    return Curve("Precision against recall", svg(figure, f"precision-{part}"), words)


PAGE = TaskPage(
    main="ap50",
    title="AP50",
    lower=False,
    each="ap50",
    counted="object",
    legend=True,
    template="objects.html.j2",
    words=(
        (
            "AP50",
            "Detections are taken from the surest on. A detection is right where its box overlaps "
            "an object's by at least half (IoU 0.5). AP50 is the precision averaged over recall: "
            "1 means that every object is found before anything false.",
        ),
        ("AP", "The mean of the same for overlaps of 0.5, 0.55, and so on up to 0.95."),
        (
            "Objects on windows",
            "Green: found. Red: marked, but no object is there. Yellow: missed. Grey: not judged "
            "in this window, for it shows too little of it. They are counted from the same score "
            "on in every window; “F1 at best” is that at the score which suits this one most, by "
            "which best and worst are chosen.",
        ),
    ),
    purpose=lambda report: f"finds {_named(report)} and draws a box around each",
    result=_result,
    overall=lambda report, part, value: (
        f"AP50, averaged over the classes, is {fmt.score(value)}; 1 would be perfect."
    ),
    context=_context,
    draw=_draw,
    telling=_telling,
)

POINTS = replace(
    PAGE,
    main="f1",
    title="F1",
    each="f1",
    template="numbers.html.j2",
    words=(
        (
            "F1",
            "The harmonic mean of what is found and what is right. An object is found by a "
            "detection within the distance that the recipe states.",
        ),
        PAGE.words[-1],
    ),
    purpose=lambda report: f"finds {_named(report)} and says where each is",
    result=_result_of_points,
    overall=lambda report, part, value: f"F1 is {fmt.score(value)}; 1 would be perfect.",
    context=lambda report, parts: number_context(report, parts, FIGURES, "objects a window"),
)
