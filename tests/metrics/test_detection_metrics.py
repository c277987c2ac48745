"""Average precision compared with supervision, pycocotools and a plain DOTA implementation."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from geotune.boxes.oriented import canonical, hull
from geotune.boxes.polygons import to_polygons
from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.metrics.average_precision import Interpolation, PrecisionRecallCurve
from geotune.metrics.coco_map import CocoMetrics
from geotune.metrics.detection_metrics import DetectionCounts, DetectionMetrics
from geotune.metrics.matching import FALSE, IGNORED, match_boxes
from helpers.errors import raises

GOLDEN = json.loads((Path(__file__).parent / "golden_average_precision.json").read_text())
CLASSES = ["ship", "harbour"]
Image = tuple[Detections, GroundTruthObjects]


def image_of(values: dict[str, Any], horizontal: bool) -> Image:
    predicted = torch.tensor(values["found"]).double()
    truth = torch.tensor(values["objects"]).double()
    if horizontal:
        predicted, truth = hull(predicted), hull(truth)
    return (
        Detections(predicted, torch.tensor(values["scores"]), torch.tensor(values["classes"])),
        GroundTruthObjects(truth, torch.tensor(values["object_classes"])),
    )


def random_images(count: int, seed: int = 0, difficult: float = 0.2) -> list[Image]:
    """Overlapping objects with several noisy detections each."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        n = int(rng.integers(5, 30))
        sides = rng.uniform(8, 40, (n, 2))
        truth = np.hstack([rng.uniform(0, 150, (n, 2)), sides, rng.uniform(-2, 2, (n, 1))])
        source = rng.integers(n, size=4 * n)
        predicted = truth[source] + rng.normal(0, 1, (4 * n, 5)) * [2, 2, 2, 2, 0.1]
        predicted[:, 2:4] = np.maximum(predicted[:, 2:4], 1)
        classes = rng.integers(2, size=n)
        guesses = np.where(rng.random(4 * n) < 0.2, 1 - classes[source], classes[source])
        images.append(
            (
                Detections(
                    canonical(torch.from_numpy(predicted)),
                    torch.from_numpy(rng.random(4 * n)).float(),
                    torch.from_numpy(guesses),
                ),
                GroundTruthObjects(
                    canonical(torch.from_numpy(truth)),
                    torch.from_numpy(classes),
                    torch.from_numpy(rng.random(n) < difficult),
                ),
            )
        )
    return images


def metrics_of(images: list[Image], **options: Any) -> DetectionMetrics:
    metrics = DetectionMetrics(CLASSES, **options)
    for predicted, truth in images:
        metrics.update([predicted], [truth])
    return metrics


@pytest.mark.parametrize("kind", ["oriented", "horizontal"])
@pytest.mark.parametrize("case", range(len(GOLDEN["cases"])))
def test_average_precision_equals_supervisions(kind: str, case: int) -> None:
    values = GOLDEN["cases"][case]
    images = [image_of(image, kind == "horizontal") for image in values["images"]]
    metrics = metrics_of(images, interpolation="coco").compute()
    # supervision stores precision in float32, and matches overlapping hulls differently.
    for name, expected in values["expected"][kind].items():
        assert metrics[name] == pytest.approx(expected, abs=1e-6 if kind == "oriented" else 5e-3), (
            name
        )


def dota_average_precision(images: list[Image], k: int, limit: float, eleven_points: bool) -> float:
    """AP by the rules of DOTA's evaluation, one detection at a time, with areas from shapely."""
    truth = [to_polygons(o.boxes[o.classes == k].numpy()) for _, o in images]
    difficult = [o.ignored()[o.classes == k].tolist() for _, o in images]
    taken: set[tuple[int, int]] = set()
    detections = [
        (float(score), i, outline)
        for i, (d, _) in enumerate(images)
        for score, outline in zip(
            d.scores[d.classes == k], to_polygons(d.boxes[d.classes == k].numpy()), strict=True
        )
    ]
    objects = sum(not flag for flags in difficult for flag in flags)
    true = false = 0
    points = []
    for _, i, outline in sorted(detections, key=lambda each: -each[0]):
        shared = shapely.area(shapely.intersection(truth[i], outline))
        ious = shared / (shapely.area(truth[i]) + shapely.area(outline) - shared)
        best = int(np.argmax(ious)) if len(ious) else -1
        if best >= 0 and ious[best] > limit:
            if difficult[i][best]:
                continue
            true, false = (true, false + 1) if (i, best) in taken else (true + 1, false)
            taken.add((i, best))
        else:
            false += 1
        points.append((true / objects, true / (true + false)))
    highest = lambda recall: max((p for r, p in points if r >= recall), default=0.0)  # noqa: E731
    if eleven_points:
        return sum(highest(t) for t in np.linspace(0, 1, 11)) / 11
    return sum(highest(n / objects - 1e-9) for n in range(1, objects + 1)) / objects


@pytest.mark.parametrize("interpolation", ["voc07", "area"])
@pytest.mark.parametrize("limit", [0.5, 0.75])
def test_average_precision_equals_dotas_with_overlapping_and_difficult_objects(
    interpolation: Any, limit: float
) -> None:
    images = random_images(4)
    values = metrics_of(images, interpolation=interpolation).compute()
    expected = [dota_average_precision(images, k, limit, interpolation == "voc07") for k in (0, 1)]
    assert values[f"ap{round(100 * limit)}"] == pytest.approx(np.mean(expected))
    if limit == 0.5:
        assert [values["ap50/ship"], values["ap50/harbour"]] == pytest.approx(expected)
    assert 0.1 < values["ap75"] < values["ap50"] < 1 and 0.1 < values["ap"] < values["ap50"]


def test_metrics_do_not_depend_on_batches_order_or_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = random_images(6)
    expected = metrics_of(images).compute()
    assert metrics_of(images[::-1]).compute() == expected
    together = DetectionMetrics(CLASSES)
    together.update(*([each[k] for each in images] for k in (0, 1)))
    assert together.compute() == expected
    parts = [metrics_of(images[:1]), metrics_of(images[1:])]
    monkeypatch.setattr(
        "geotune.metrics.state.all_gather", lambda _: [part.state() for part in parts]
    )
    assert parts[0].compute() == parts[1].compute() == expected
    assert list(expected) == list(together.metric_names) and not together.state_dict()


def test_equal_scores_enter_the_curve_together() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 1, 3]):
        curve = PrecisionRecallCurve.from_scores(
            scores[order], np.array([True, False, True, False])[order], 2
        )
        assert curve.scores.tolist() == [0.9, 0.5]
        assert curve.true_positives.tolist() == [1, 2]
        assert curve.false_positives.tolist() == [0, 2]
        assert curve.average_precision() == 0.5 * 1 + 0.5 * 0.5
        assert curve.best_threshold() in (0.9, 0.5) and curve.f1.tolist() == pytest.approx(
            [2 / 3, 2 / 3]
        )


@pytest.mark.parametrize("interpolation", ["area", "voc07", "coco"])
def test_metrics_equal_the_average_precision_of_the_curves(interpolation: Interpolation) -> None:
    images = random_images(20, seed=3)
    rounded = [
        (replace(predicted, scores=predicted.scores.round(decimals=1)), truth)
        for predicted, truth in images
    ]
    for each in (images, rounded):  # distinct scores, and tied ones
        metrics = metrics_of(each, interpolation=interpolation)
        values, curves = metrics.compute(), metrics.curves(0.5)
        for name in CLASSES:
            expected = curves[name].average_precision(interpolation)
            assert values[f"ap50/{name}"] == pytest.approx(expected)


def test_interpolations_by_hand() -> None:
    curve = PrecisionRecallCurve.from_scores(np.array([0.9, 0.8, 0.7]), np.ones(3, dtype=bool), 8)
    assert curve.average_precision("voc07") == pytest.approx(4 / 11)
    assert curve.average_precision("coco") == pytest.approx(38 / 101)
    assert curve.average_precision("area") == pytest.approx(3 / 8)


def test_counts_include_detections_at_or_above_the_score() -> None:
    box = torch.tensor([[10.0, 10, 8, 4, 0.3], [40, 10, 8, 4, 1], [70, 10, 8, 4, 0]])
    predicted = Detections(
        box[[0, 0, 1, 2]], torch.tensor([0.9, 0.6, 0.5, 0.4]), torch.tensor([0, 0, 0, 1])
    )
    truth = GroundTruthObjects(box, torch.tensor([0, 0, 0]), torch.tensor([False, False, True]))
    metrics = metrics_of([(predicted, truth)])
    assert metrics.counts(0.9)["ship"] == DetectionCounts(1, 0, 1)
    # a second detection of the same object is a false positive
    assert metrics.counts(0.6)["ship"] == DetectionCounts(1, 1, 1)
    assert metrics.counts(0)["ship"] == DetectionCounts(2, 1, 0)
    assert metrics.counts(0.95) == {
        "ship": DetectionCounts(0, 0, 2),
        "harbour": DetectionCounts(0, 0, 0),
    }
    assert metrics.counts(0)["harbour"] == DetectionCounts(0, 1, 0)
    values = metrics.compute()
    assert math.isnan(values["ap50/harbour"]) and values["ap50"] == values["ap50/ship"]


def test_match_boxes_returns_object_indices() -> None:
    box = torch.tensor([[10.0, 10, 8, 4, 0.3], [40, 10, 8, 4, 1], [70, 10, 8, 4, 0]])
    scores, classes = torch.tensor([0.1, 0.6, 0.5, 0.4]), torch.tensor([0, 0, 0, 1])
    truth = GroundTruthObjects(box, torch.tensor([0, 0, 1]), torch.tensor([False, True, False]))
    matches = match_boxes(Detections(box[[0, 0, 1, 0]], scores, classes), truth, [0.5])
    assert matches[:, 0].tolist() == [FALSE, 0, IGNORED, FALSE]


def test_metrics_without_detections_objects_or_images() -> None:
    nothing = Detections(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    empty = GroundTruthObjects(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    one = GroundTruthObjects(torch.tensor([[1.0, 1, 2, 1, 0]]), torch.tensor([1]))
    assert all(math.isnan(value) for value in metrics_of([]).compute().values())
    assert list(DetectionMetrics([]).compute()) == ["ap50", "ap75", "ap"]
    assert all(math.isnan(v) for v in metrics_of([(nothing, empty)]).compute().values())
    values = metrics_of([(nothing, one), (nothing, empty)]).compute()
    assert values["ap50"] == values["ap/harbour"] == 0
    metrics = metrics_of([(nothing, one)])
    metrics.reset()
    assert math.isnan(metrics.compute()["ap"])


def test_mismatched_box_shapes_are_errors() -> None:
    with raises("boxes-invalid", mentions=[(2, 8)]):
        GroundTruthObjects(torch.zeros(2, 8), torch.zeros(2))
    with raises("boxes-invalid", mentions=["scores", (3,)]):
        Detections(torch.zeros(2, 5), torch.zeros(3), torch.zeros(2))


def test_coco_average_precision_equals_pycocotools() -> None:
    images = [
        (
            Detections(hull(d.boxes).float(), d.scores, d.classes),
            GroundTruthObjects(hull(o.boxes).float(), o.classes, o.difficult),
        )
        for d, o in random_images(5, seed=3)
    ]
    metrics = CocoMetrics([*CLASSES, "absent"])
    metrics.update(*([each[k] for each in images] for k in (0, 1)))
    values = metrics.compute()
    annotations, results = [], []
    for i, (d, o) in enumerate(images):
        for box, k, crowd in zip(o.boxes.tolist(), o.classes.tolist(), o.ignored(), strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": k, "iscrowd": int(crowd),
                 "bbox": [x, y, w, h], "area": w * h}
            )  # fmt: skip
        for box, k, score in zip(
            d.boxes.tolist(), d.classes.tolist(), d.scores.tolist(), strict=True
        ):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": i, "category_id": k, "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {}, "images": [{"id": i} for i in range(5)], "annotations": annotations,
            "categories": [{"id": 0}, {"id": 1}],
        }  # fmt: skip
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ["coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium"]
    assert [values[name] for name in names] == pytest.approx(evaluation.stats[:5], abs=1e-6)
    assert math.isnan(values["coco_ap/absent"]) and math.isnan(values["coco_ap_large"]) == (
        evaluation.stats[5] < 0
    )
    by_class = [values[f"coco_ap/{name}"] for name in CLASSES]
    assert np.mean(by_class) == pytest.approx(values["coco_ap"], abs=1e-6)
    assert tuple(values) == metrics.metric_names


def test_coco_metrics_reject_oriented_boxes_and_reset() -> None:
    metrics = CocoMetrics(CLASSES)
    ((d, o),) = random_images(1)
    with raises("box-type-unsupported"):
        metrics.update([d], [o])
    metrics.update(
        [Detections(hull(d.boxes), d.scores, d.classes)],
        [GroundTruthObjects(hull(o.boxes), o.classes)],
    )
    assert metrics.compute()["coco_ap50"] > 0
    metrics.reset()
    assert metrics.metric.detection_scores == []
