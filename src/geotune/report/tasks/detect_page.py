"""Report of detection: boxes on windows, precision-recall curves, metrics per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from geotune.boxes import structures
from geotune.boxes.oriented import centres
from geotune.data.annotations.object_target import ObjectTarget
from geotune.metrics.matching import FALSE as UNMATCHED
from geotune.metrics.matching import match_boxes, match_points
from geotune.report import number_format as fmt
from geotune.report.context import Report, scenes_of
from geotune.report.images import boxes_on, shrunk
from geotune.report.plots import Curve, new_axes, svg
from geotune.report.tasks.base import DisplayedWindow, Picture, TaskPage
from geotune.report.tasks.regress_page import number_context
from geotune.utils.colors import Color, css

IOU = 0.5
TRUE: Color = (0, 190, 120)
FALSE: Color = (240, 80, 60)
MISSED: Color = (250, 215, 40)
IGNORED: Color = (170, 170, 170)
METRIC_TITLES = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "rmse_m": "Root mean square distance of true positives, metres",
    "count_mae": "Mean absolute error of the count per window",
    "count_bias": "Bias of the count per window (prediction minus label)",
    "threshold": "Score threshold",
}


def _draw(shown: DisplayedWindow) -> tuple[str, Mapping[str, Picture]]:
    assert isinstance(shown.target, ObjectTarget)
    target, details = shown.target, shown.details
    by_class = [details["threshold"].get(name) for name in shown.classes]
    thresholds = np.array([np.inf if value is None else value for value in by_class])
    boxes, scores = shown.prediction[:, :-2], shown.prediction[:, -2]
    classes = shown.prediction[:, -1].astype(np.int64)
    kept = scores >= thresholds[classes] - 1e-6
    boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    radius = details.get("radius_px")
    if radius is None:
        matches = _match_by_iou(boxes, scores, classes, target)
    else:
        matches = _match_by_distance(boxes, classes, target, float(radius))
    true = np.unique(matches[matches >= 0])
    missed = np.setdiff1d(np.flatnonzero(target.counted), true)
    drawn = {
        IGNORED: target.boxes[~target.counted],
        MISSED: target.boxes[missed],
        FALSE: boxes[matches == UNMATCHED],
        TRUE: boxes[matches >= 0],
    }
    caption = (
        f"{len(true)} correct, {int((matches == UNMATCHED).sum())} false, {len(missed)} missed"
        f" · best F1 {fmt.score(shown.score)}"
    )
    picture = boxes_on(shown.image, drawn, points=radius is not None)
    if picture.shape == shown.image.shape:
        return caption, {"image": shrunk(shown.image), "objects": picture}
    factor = picture.shape[0] // shown.image.shape[0]
    large = shown.image.repeat(factor, axis=0).repeat(factor, axis=1)
    return caption, {"image": large if factor > 1 else shrunk(shown.image), "objects": picture}


def _match_by_iou(
    boxes: Any, scores: Any, classes: Any, target: ObjectTarget
) -> np.ndarray[Any, Any]:
    detections = structures.Detections(
        torch.from_numpy(boxes.astype(np.float64)),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
    )
    objects = structures.GroundTruthObjects(
        torch.from_numpy(target.boxes),
        torch.from_numpy(target.classes),
        torch.from_numpy(~target.counted),
    )
    return match_boxes(detections, objects, [IOU])[:, 0]


def _match_by_distance(
    boxes: Any, classes: Any, target: ObjectTarget, radius: float
) -> np.ndarray[Any, Any]:
    matches = np.full(len(boxes), UNMATCHED, dtype=np.int64)
    for index in np.unique(classes):
        predicted = np.flatnonzero(classes == index)
        labelled = np.flatnonzero(target.counted & (target.classes == index))
        i, j = match_points(
            np.asarray(centres(boxes[predicted]), dtype=np.float64),
            np.asarray(centres(target.boxes[labelled]), dtype=np.float64),
            radius,
        )
        matches[predicted[i]] = labelled[j]
    return matches


def _has_objects(target: Any, common: int) -> bool:
    return bool(target.counted.any())


def _class_list(report: Report) -> str:
    return fmt.listing(list(report.classes), "and")


def _result(report: Report, split: str) -> list[str]:
    counts = report.details.get("counts", {}).get(split, {})
    sentences = []
    for name, count in counts.items():
        labelled, predicted = count["true"] + count["missed"], count["true"] + count["false"]
        if not labelled:
            sentences.append(f"No {name} is labelled in {scenes_of(report, split, 'held-out ')}.")
            continue
        recall = f"it finds {count['true']} of {labelled} labelled objects of class {name}"
        precision = f"; {count['true']} of {predicted} detections are correct" if predicted else ""
        sentences.append(f"On {scenes_of(report, split, 'held-out ')}, {recall}{precision}.")
    return sentences


def _points_result(report: Report, split: str) -> list[str]:
    values = report.metrics[split]
    if fmt.missing(values.get("f1")):
        return []
    return [
        f"On {scenes_of(report, split, 'held-out ')}, it finds {fmt.percent(values['recall'])} of "
        f"the labelled objects, and {fmt.percent(values['precision'])} of its detections are "
        "correct; the mean absolute error of the count per window is "
        f"{fmt.number(values['count_mae'])}."
    ]


def _context(report: Report, splits: Sequence[str]) -> dict[str, Any]:
    details = report.details
    return {
        "object_tables": {
            split: [
                {
                    "name": name,
                    "color": color,
                    "ap50": report.metrics[split].get(f"ap50/{name}"),
                    "ap": report.metrics[split].get(f"ap/{name}"),
                    "threshold": details.get("threshold", {}).get(split, {}).get(name),
                    **details.get("counts", {}).get(split, {}).get(name, {}),
                }
                for name, color in zip(report.classes, report.colors, strict=True)
            ]
            for split in splits
        },
        "object_curves": {
            split: curve for split in splits if (curve := _curve(report, split)) is not None
        },
    }


def _curve(report: Report, split: str) -> Curve | None:
    curves = report.details.get("curve", {}).get(split, {})
    if not any(curve["recall"] for curve in curves.values()):
        return None
    figure, axes = new_axes("recall", "precision", size=(3.9, 3.5))
    for name, color in zip(report.classes, report.colors, strict=True):
        curve = curves[name]
        rgb = (color[0] / 255, color[1] / 255, color[2] / 255)
        axes.plot(curve["recall"], curve["precision"], color=rgb, linewidth=2, label=name)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    if len(report.classes) > 1:
        axes.legend(frameon=False, fontsize=10)
    words = "Precision and recall by class for decreasing score thresholds"
    return Curve("Precision-recall curve", svg(figure, f"precision-{split}"), words)


PAGE = TaskPage(
    main="ap50",
    title="AP50",
    lower_is_better=False,
    per_class_metric="ap50",
    label_unit="object",
    legend=True,
    template="objects.html.j2",
    glossary=(
        (
            "AP50",
            "Average precision at IoU 0.5. Detections are ranked by score; a detection is correct "
            "if its IoU with an object is 0.5 or more. AP50 is the mean precision over all recall "
            "levels: 1 if every object is ranked above every false detection.",
        ),
        ("AP", "The mean of the average precision at IoU 0.5, 0.55, ... 0.95, as in COCO."),
        (
            "Boxes on windows",
            "Green: correct. Red: false detection. Yellow: missed. Grey: ignored, because it is "
            "difficult or mostly outside the window. The same score threshold applies to all "
            "windows. “Best F1” is the F1 at the best threshold of the window itself; it ranks the "
            "windows from best to worst.",
        ),
    ),
    purpose=lambda report: f"detects {_class_list(report)} as boxes",
    result=_result,
    overall=lambda report, split, value: (
        f"The mean AP50 over all classes is {fmt.score(value)} (1 is perfect)."
    ),
    context=_context,
    draw=_draw,
    is_informative=_has_objects,
    picture_key=(
        (css(TRUE), "correct"),
        (css(FALSE), "false detection"),
        (css(MISSED), "missed"),
        (css(IGNORED), "ignored"),
    ),
)

POINTS = replace(
    PAGE,
    main="f1",
    title="F1",
    per_class_metric="f1",
    template="numbers.html.j2",
    glossary=(
        (
            "F1",
            "The harmonic mean of precision and recall. A detection is correct if it lies within "
            "the recipe's matching radius of an object.",
        ),
        PAGE.glossary[-1],
    ),
    purpose=lambda report: f"detects {_class_list(report)} as points",
    result=_points_result,
    overall=lambda report, split, value: f"F1 is {fmt.score(value)} (1 is perfect).",
    context=lambda report, splits: number_context(
        report, splits, METRIC_TITLES, "objects per window"
    ),
)
