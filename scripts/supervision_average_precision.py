"""Write the average precision that `supervision` computes for random detections, as test data.

    uv run --no-project --with 'supervision>=0.31' --with opencv-python-headless \
        scripts/supervision_average_precision.py

`supervision` (MIT) is not a test dependency: since it added oriented AP it requires PyAV, whose
wheels include x264 and x265, which are under the GPL. It is run separately, and its results are
saved with the boxes in `tests/metrics/golden_average_precision.json`.

Objects do not overlap, so a detection has an IoU above 0.5 with at most one of them; in that case
COCO's matching, which supervision follows, and DOTA's agree.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import supervision
from numpy.typing import NDArray
from supervision.metrics import MeanAveragePrecision, MetricTarget

GOLDEN = Path(__file__).parents[1] / "tests" / "metrics" / "golden_average_precision.json"
CASES, IMAGES, CLASSES, CELLS, CELL = 6, 3, 2, 5, 60
Boxes = NDArray[np.float64]


def make_objects(rng: np.random.Generator) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes (cx, cy, w, h, angle) in random grid cells, one per cell, and their classes."""
    cells = np.stack(np.mgrid[:CELLS, :CELLS], -1).reshape(-1, 2) * CELL + CELL / 2
    cells = cells[rng.permutation(len(cells))[: rng.integers(8, 20)]]
    n = len(cells)
    w = rng.uniform(20, 50, n)
    columns = [
        cells + rng.uniform(-4, 4, (n, 2)),
        w[:, None],
        (w * rng.uniform(0.3, 1, n))[:, None],
    ]
    return np.hstack([*columns, rng.uniform(-1.57, 1.57, (n, 1))]), rng.integers(CLASSES, size=n)


def make_detections(
    rng: np.random.Generator, boxes: Boxes, classes: NDArray[np.int64]
) -> tuple[Boxes, NDArray[np.float64], NDArray[np.int64]]:
    """Noisy detections of each object, some with the wrong class, and false positives; scores."""
    source = rng.integers(len(boxes), size=3 * len(boxes))
    noisy = boxes[source] + rng.normal(0, 1, (len(source), 5)) * [2, 2, 3, 2, 0.08]
    noisy[:, 2:4] = np.maximum(noisy[:, 2:4], 4)
    stray = boxes + np.array([25, 25, 0, 0, 1])
    mislabelled = rng.random(len(source)) < 0.1
    labels = np.where(mislabelled, rng.integers(CLASSES, size=len(source)), classes[source])
    scores = rng.random(len(source) + len(stray))
    return np.vstack([noisy, stray]), scores, np.append(labels, classes)


def corners(boxes: Boxes) -> Boxes:
    """Corners `(N, 4, 2)` of boxes `(N, 5)`."""
    cos, sin = np.cos(boxes[:, 4:]), np.sin(boxes[:, 4:])
    along, across = (
        np.hstack([cos, sin]) * boxes[:, 2:3] / 2,
        np.hstack([-sin, cos]) * boxes[:, 3:4] / 2,
    )
    c = boxes[:, :2]
    return np.stack(
        [c - along - across, c + along - across, c + along + across, c - along + across], 1
    )


def detections(points: Boxes, classes: Any, scores: Any = None) -> supervision.Detections:
    """In supervision's format."""
    return supervision.Detections(
        xyxy=np.hstack([points.min(1), points.max(1)]),
        class_id=classes,
        confidence=scores,
        data={"xyxyxyxy": points},
    )


def case(seed: int) -> dict[str, Any]:
    """The boxes of a case and its AP at IoU 0.5, 0.75 and their mean, oriented and horizontal."""
    rng = np.random.default_rng(seed)
    images, predictions, truths = [], [], []
    for _ in range(IMAGES):
        boxes, classes = make_objects(rng)
        boxes = boxes.round(3)
        predicted, scores, labels = make_detections(rng, boxes, classes)
        predicted, scores = predicted.round(3), scores.round(6)
        predictions.append(detections(corners(predicted), labels, scores))
        truths.append(detections(corners(boxes), classes))
        images.append(
            {"objects": boxes.tolist(), "object_classes": classes.tolist(),
             "found": predicted.tolist(),
             "scores": scores.tolist(), "classes": labels.tolist()}
        )  # fmt: skip
    expected = {}
    for name, target in (
        ("oriented", MetricTarget.ORIENTED_BOUNDING_BOXES), ("horizontal", MetricTarget.BOXES)
    ):  # fmt: skip
        metric = MeanAveragePrecision(target, max_detection_thresholds=(1, 10, 10_000))
        result = metric.update(predictions, truths).compute()
        expected[name] = {"ap50": result.map50, "ap75": result.map75, "ap": result.map50_95}
        assert all(math.isfinite(value) for value in expected[name].values())
    return {"images": images, "expected": expected}


if __name__ == "__main__":
    golden = {"supervision": version("supervision"), "cases": [case(seed) for seed in range(CASES)]}
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"written: {GOLDEN}")
